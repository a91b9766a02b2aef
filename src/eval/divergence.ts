import type { LogitRows } from "./logits.js";

/** How far one model's predictions lie from another's over the same positions. */
export interface Divergence {
  /** Mean over the predicted tokens of KL(baseline ‖ this), in nats. */
  klDivergence: number;
  /** Share of the predicted tokens for which both put the same token first. */
  top1Agreement: number;
}

/** Adds up divergences over positions; both sides must have the same vocabulary. */
export class DivergenceSum {
  #tokens = 0;
  #kl = 0;
  #agreements = 0;

  /** Adds every row. */
  add(baseline: LogitRows, other: LogitRows): void {
    for (let row = 0; row < baseline.rows; row++) {
      this.#kl += klDivergence(baseline, other, row);
      if (argmax(baseline, row) === argmax(other, row)) this.#agreements++;
    }
    this.#tokens += baseline.rows;
  }

  result(): Divergence {
    return { klDivergence: this.#kl / this.#tokens, top1Agreement: this.#agreements / this.#tokens };
  }
}

/** KL(p ‖ q) = Σ p·(ln p − ln q) of one position, in nats and f64. */
function klDivergence(baseline: LogitRows, other: LogitRows, row: number): number {
  const begin = row * baseline.stride;
  const otherBegin = row * other.stride;
  const shift = other.logSumExp[row] - baseline.logSumExp[row];
  let sum = 0;
  for (let i = 0; i < baseline.vocabSize; i++) {
    const logit = baseline.values[begin + i];
    const p = Math.exp(logit - baseline.logSumExp[row]);
    sum += p * (logit - other.values[otherBegin + i] + shift);
  }
  // Nearly equal logits may sum to a rounding error below 0.
  return Math.max(0, sum);
}

function argmax({ values, stride, vocabSize }: LogitRows, row: number): number {
  const begin = row * stride;
  let best = begin;
  for (let i = begin + 1; i < begin + vocabSize; i++) if (values[i] > values[best]) best = i;
  return best - begin;
}

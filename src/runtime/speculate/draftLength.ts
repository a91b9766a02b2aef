import { UsageError } from "../../core/index.js";
import type { Sampler } from "../samplers.js";
import type { Sequence } from "../sequence.js";

/** Most tokens that are proposed at once. */
export const longestDraft = 16;
/** What is tried before anything is known. */
const first = [4, 1, 8];
/** Rounds that count. */
const remembered = 64;
/** After so many rounds without a draft one is tried again. */
const retryAfter = 32;

interface Round {
  readonly drafted: number;
  readonly accepted: number;
  readonly draftMs: number;
  readonly verifyMs: number;
}

/**
 * How many tokens are worth proposing: the most tokens per millisecond, by the share that was accepted and by what drafting
 * and verifying took. With a chance a for each token, g of them give (1 − a^(g + 1)) / (1 − a) on average. 0 where the target
 * alone is faster.
 */
export class DraftLength {
  readonly #rounds: Round[] = [];
  #idle = 0;

  /** @param fixed always so many */
  constructor(readonly fixed?: number) {}

  next(): number {
    if (this.fixed !== undefined) return this.fixed;
    const tried = this.#rounds.filter(({ drafted }) => drafted > 0);
    if (tried.length < first.length) return first[tried.length];
    if (this.#idle >= retryAfter) {
      this.#idle = 0;
      return 2;
    }
    const best = this.#best(tried);
    this.#idle = best === 0 ? this.#idle + 1 : 0;
    return best;
  }

  record(round: Round): void {
    this.#rounds.push(round);
    if (this.#rounds.length > remembered) this.#rounds.shift();
  }

  #best(tried: readonly Round[]): number {
    const total = (of: (round: Round) => number) => tried.reduce((sum, round) => sum + of(round), 0);
    const accepted = total((round) => round.accepted);
    const chance = accepted / (accepted + total((round) => Number(round.accepted < round.drafted)));
    const draftMs = total((round) => round.draftMs) / total((round) => round.drafted);
    const verifyMs = line(this.#rounds.map((round) => [1 + round.drafted, round.verifyMs]));
    let best = 0;
    let most = 0;
    for (let length = 0; length <= longestDraft; length++) {
      const tokens = chance === 1 ? length + 1 : (1 - chance ** (length + 1)) / (1 - chance);
      const speed = tokens / (length * draftMs + verifyMs(1 + length));
      if (speed > most) [best, most] = [length, speed];
    }
    return best;
  }
}

/** The straight line through points, by least squares, which does not fall, nor comes near 0. */
function line(points: readonly (readonly [x: number, y: number])[]): (x: number) => number {
  const mean = (of: (point: readonly [number, number]) => number) =>
    points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const [x, y] = [mean((point) => point[0]), mean((point) => point[1])];
  const spread = mean((point) => (point[0] - x) ** 2);
  const slope = spread === 0 ? 0 : Math.max(0, mean((point) => (point[0] - x) * (point[1] - y)) / spread);
  const least = Math.min(...points.map((point) => point[1]));
  return (at) => Math.max(least / 4, y + slope * (at - x));
}

/** @throws UsageError for more than are ever proposed */
export function draftLengthFor(sampler: Sampler, draftTokens: number | undefined): DraftLength {
  if (draftTokens !== undefined && draftTokens > longestDraft) {
    throw new UsageError(`${draftTokens} draft tokens; there are at most ${longestDraft}`);
  }
  // Times must not decide which random numbers a token gets: the same seed then gives the same text.
  return new DraftLength(draftTokens ?? (sampler.greedy || sampler.options.seed === undefined ? undefined : 4));
}

/** @throws UsageError where a sequence could not take back what was proposed in vain */
export function checkTakesBack({ keepsAll, exactTokens }: Pick<Sequence, "keepsAll" | "exactTokens">): void {
  if (keepsAll && exactTokens >= longestDraft) return;
  throw new UsageError(
    "a draft needs a KV policy that keeps every token, with groups of codes a residual of at least " +
      `${longestDraft}: what was proposed in vain must be taken back`,
  );
}

import { type LinearStep, linearsOf, type MixtureStep, type TensorRef } from "../../arch/index.js";
import { type ExpertMap, matchHiddenUnits, permuted } from "../../compress/index.js";
import { UsageError } from "../../core/index.js";
import type { Checkpoint } from "../../io/index.js";
import { dtypeBytes, toFloat32 } from "../../tensor/index.js";

/** One of the experts that become one, and its share of the sum. */
export interface MergedMember {
  expert: number;
  share: number;
}

/** How experts are folded into those that stay. */
export interface Merging {
  /** Of every layer and every expert that stays, itself first; undefined for layers without experts. */
  groups: readonly (readonly (readonly MergedMember[])[] | undefined)[];
  /** Whether hidden units are matched before. */
  aligns: boolean;
}

/** A tensor, or one entry of a stacked one, in a sum. */
export interface Summand {
  tensor: string;
  entry: number;
  share: number;
  /** Its values with the hidden units in the order of the first summand. */
  ordered?(values: Float32Array): Promise<Float32Array>;
}

/** What the maps of the experts of one layer are sums of. */
export class Summands {
  readonly #orders = new Map<string, Promise<Uint32Array>>();

  constructor(
    readonly checkpoint: Checkpoint,
    readonly step: MixtureStep,
    readonly groups: readonly (readonly MergedMember[])[],
    readonly aligns: boolean,
  ) {
    const maps = linearsOf(step.experts[0]);
    for (const { weight } of maps) {
      const dtype = checkpoint.tensors.get(weight.tensor)?.dtype;
      if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16")
        throw new UsageError(`${weight.tensor} cannot be merged: merge experts of plain tensors of f32, bf16 or f16`);
    }
    const shared = maps.find(({ weight }) => weight.stacked !== undefined || weight.rows || weight.transposed);
    if (aligns && shared !== undefined) {
      throw new UsageError(
        `hidden units of ${shared.weight.tensor} cannot be matched, where all experts lie in one tensor; merge by average`,
      );
    }
  }

  /** @param group place among the experts that stay @param m which of an expert's maps @param bias of that map instead of its weight */
  of(group: number, m: number, bias: boolean): Summand[] {
    const members = this.groups[group];
    return members.map(({ expert, share }) => {
      const ref = this.#ref(expert, m, bias);
      const first = members[0].expert;
      const { hidden } = this.#shapes[m];
      const moves = this.aligns && expert !== first && !(bias && hidden === "cols");
      return {
        tensor: ref.tensor,
        entry: ref.stacked ?? 0,
        share,
        ...(moves && {
          ordered: async (values: Float32Array) => {
            const order = await this.#order(first, expert);
            const [rows, cols] = bias ? [values.length, 1] : this.#sizes(m);
            return permuted({ values, rows, cols, hidden }, order);
          },
        }),
      };
    });
  }

  /** On which side of each map the hidden units lie: what reads the input of the experts writes them. */
  get #shapes(): { hidden: ExpertMap["hidden"] }[] {
    const linears = this.step.experts[0].steps.filter((inner): inner is LinearStep => inner.do === "linear");
    return linears.flatMap(({ of, maps }) =>
      maps.map(() => ({ hidden: of === this.step.of ? "rows" : "cols" }) as const),
    );
  }

  #sizes(m: number): [number, number] {
    const { rows, cols } = linearsOf(this.step.experts[0])[m];
    return [rows, cols];
  }

  #ref(expert: number, m: number, bias: boolean): TensorRef {
    const map = linearsOf(this.step.experts[expert])[m];
    return bias ? map.bias! : map.weight;
  }

  #order(to: number, from: number): Promise<Uint32Array> {
    const key = `${to} ${from}`;
    let order = this.#orders.get(key);
    if (order === undefined) {
      order = Promise.all([this.#maps(to), this.#maps(from)]).then(([a, b]) => matchHiddenUnits(a, b));
      this.#orders.set(key, order);
    }
    return order;
  }

  #maps(expert: number): Promise<ExpertMap[]> {
    return Promise.all(
      this.#shapes.map(async ({ hidden }, m) => {
        const [rows, cols] = this.#sizes(m);
        return {
          values: await floatsOf(this.checkpoint, this.#ref(expert, m, false), rows * cols),
          rows,
          cols,
          hidden,
        };
      }),
    );
  }
}

/** Σ share · values, in f64. @param length bytes of one summand */
export async function sumOf(
  checkpoint: Checkpoint,
  summands: readonly Summand[],
  length: number,
): Promise<Float32Array> {
  const count = length / dtypeBytes[checkpoint.tensors.get(summands[0].tensor)!.dtype];
  const sum = new Float64Array(count);
  for (const { tensor, entry, share, ordered } of summands) {
    const stored = await floatsOf(checkpoint, { tensor, stacked: entry }, count);
    const values = ordered === undefined ? stored : await ordered(stored);
    for (let i = 0; i < count; i++) sum[i] += share * values[i];
  }
  return Float32Array.from(sum);
}

async function floatsOf(
  checkpoint: Checkpoint,
  { tensor, stacked = 0 }: Pick<TensorRef, "tensor" | "stacked">,
  count: number,
): Promise<Float32Array> {
  const { dtype } = checkpoint.tensors.get(tensor)!;
  const bytes = count * dtypeBytes[dtype];
  return toFloat32(dtype, await checkpoint.read(tensor, stacked * bytes, bytes));
}

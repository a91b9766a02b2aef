import { UsageError } from "../core/index.js";
import type { InputShare, PassThresholds } from "../model/index.js";
import { type Choosable, count, type ParameterRules, type ParameterValues, parseChoice, share } from "./parameters.js";

/** A way to skip inputs of linear maps as a model runs, by what they are and not by what was calibrated. */
export interface SparsityKind<R extends ParameterRules = ParameterRules> extends Choosable {
  readonly parameters: R;
  /** What it skips. @throws UsageError for parameters that do not fit one another */
  make(values: ParameterValues<R>): "exact" | "dense" | InputShare;
}

const kind = <const R extends ParameterRules>(entry: SparsityKind<R>): SparsityKind => entry as unknown as SparsityKind;

/** All of them by the name that a text chooses them with. */
export const sparsityKinds: Readonly<Record<string, SparsityKind>> = {
  dense: kind({ summary: "nothing is skipped, not even zeros", parameters: {}, make: () => "dense" }),
  exact: kind({
    summary: "only the zeros that a ReLU leaves, which changes no result; what models without thresholds do",
    parameters: {},
    make: () => "exact",
  }),
  topk: kind({
    summary: "each token keeps only its largest inputs (Q-Sparse)",
    parameters: { zeros: share("share of the inputs of every linear map that count as 0") },
    make: ({ zeros }) => ({ zeros }),
  }),
  blocks: kind({
    summary: "of every few neighbours the largest (the block form of Q-Sparse)",
    parameters: { keep: count("inputs of a block that stay", 1), of: count("inputs of a block", 1) },
    make({ keep, of }) {
      if (keep > of) throw new UsageError(`blocks:keep=${keep},of=${of} keeps more than there are`);
      return { keep, of };
    },
  }),
  mass: kind({
    summary: "the fewest inputs that make up a share of the sum of all magnitudes",
    parameters: { share: share("share of the sum that stays") },
    make: ({ share }) => ({ mass: share }),
  }),
};

/** A kind with its parameters. */
export interface Sparsity {
  /** As it was written: `topk:zeros=0.5`. */
  readonly text: string;
  /** For a model of so many layers; the same object each time. */
  of(layers: number): PassThresholds;
}

/**
 * Reads what inputs are skipped: `topk:zeros=0.5`.
 * @throws UsageError naming what is wrong and what there is
 */
export function parseSparsity(text: string): Sparsity {
  const { entry, values } = parseChoice("a kind of activation sparsity", sparsityKinds, text);
  const skipped = entry.make(values as never);
  const made = new Map<number, PassThresholds>();
  return {
    text,
    of(layers) {
      const known = made.get(layers);
      if (known !== undefined) return known;
      const thresholds =
        typeof skipped === "string" ? skipped : { maps: Array.from({ length: layers }, () => ({})), inputs: skipped };
      made.set(layers, thresholds);
      return thresholds;
    },
  };
}

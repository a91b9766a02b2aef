import type { Activation, BackendCounters, MorphemeScoreOptions, Vector } from "../backend.js";
import { morphemeBytes, morphemeRun } from "../morphemes.js";
import type { Context } from "./context.js";
import { at } from "./elementwise.js";
import { type GpuVector, own } from "./storage.js";
import { elementGroups } from "./wgsl/elementwise.js";
import * as kernels from "./wgsl/morphemes.js";

/** Enqueues `Backend.morphemeScores`. */
export function morphemeScores(
  { recorder }: Context,
  counters: BackendCounters,
  out: Activation,
  x: Activation,
  table: Vector,
  index: Vector,
  options: MorphemeScoreOptions,
): void {
  counters.weightBytesRead += morphemeBytes(out, x, table, index, options);
  const [target, source] = [own(out), own(x)];
  const [vectors, places, scales] = [table, index, options.scale ?? table].map(
    (vector) => (vector as GpuVector).memory,
  );
  const { order, morphemes, width, rank, accumulate = false } = options;
  recorder.run(
    kernels.morphemeScores,
    {
      ...{ cols: out.cols, order, morphemes, width, rank, run: morphemeRun(options) },
      scaled: Number(options.scale !== undefined),
      accumulate: Number(accumulate),
      ...at("out", target),
      ...at("x", source),
    },
    // Without scales something has to lie in their place.
    { outs: target.memory, xs: source.memory, table: vectors, places, scales },
    [elementGroups(out.cols), out.rows],
  );
}

import type { MorphemeScoreOptions } from "../backend.js";
import { morphemeRun } from "../morphemes.js";
import type { ProgramActivation, ProgramVector } from "./storage.js";

/** Records `Backend.morphemeScores` where x lies. */
export function morphemeScores(
  out: ProgramActivation,
  x: ProgramActivation,
  table: ProgramVector,
  index: ProgramVector,
  options: MorphemeScoreOptions,
): void {
  const { scale, order, morphemes, width, rank, accumulate = false } = options;
  const arena = x.block.home;
  arena.record("morphemeScores", {
    x: x.readIn(arena),
    xStride: x.stride,
    out: accumulate ? out.readIn(arena) : out.writeIn(arena),
    outStride: out.stride,
    rows: out.rows,
    cols: out.cols,
    table: table.constant.readIn(arena),
    index: index.constant.readIn(arena),
    scale: (scale as ProgramVector | undefined)?.constant.readIn(arena) ?? 0,
    order,
    morphemes,
    width,
    rank,
    run: morphemeRun(options),
    accumulate,
  });
}

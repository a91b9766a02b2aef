import type { TopK } from "../backend.js";
import type { ProgramActivation } from "./storage.js";

/** Runs what is recorded and then `Backend.topK`. */
export function topK(x: ProgramActivation, k: number): TopK[] {
  const arena = x.block.home;
  const { rows, cols } = x;
  const results = arena.scratch(rows * k * 8);
  arena.record("topK", { x: x.readIn(arena), xStride: x.stride, rows, cols, k, results });
  arena.run();
  const floats = arena.floats(results, rows * k * 2).slice();
  const words = new Uint32Array(floats.buffer);
  return Array.from({ length: rows }, (_, r) => ({
    ids: Uint32Array.from({ length: k }, (_, i) => words[(r * k + i) * 2]),
    values: Float32Array.from({ length: k }, (_, i) => floats[(r * k + i) * 2 + 1]),
  }));
}

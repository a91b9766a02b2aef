import type { Context } from "./context.js";
import type { GpuMemory } from "./device.js";
import type { GpuMatrix } from "./matrix.js";
import type { GpuActivation } from "./storage.js";
import { embedRows, embedThreads } from "./wgsl/embed.js";

/**
 * out[r] = row ids[r] of the first part of `table`.
 * @param ids or memory of the device that holds them, the first of every two words
 */
export function lookUp(
  { recorder, nothing }: Context,
  out: GpuActivation,
  { cols, groups, chunks, kernels, parts }: GpuMatrix,
  ids: Uint32Array | GpuMemory,
): void {
  const known = ids instanceof Uint32Array;
  const { rows } = parts[0];
  for (const { memory, runs } of chunks) {
    for (const { part, firstTile, tiles, unitBase } of runs) {
      if (part !== 0) continue;
      for (let first = 0; first < out.rows; first += embedRows) {
        recorder.run(
          kernels.embed,
          {
            cols,
            rows,
            groups,
            firstTile,
            tiles,
            unitBase,
            outOffset: out.offset + first * out.stride,
            outStride: out.stride,
            firstPair: first,
            usePairs: known ? 0 : 1,
          },
          { outs: out.memory, units: memory, pairs: known ? nothing : ids },
          [Math.ceil(cols / embedThreads), Math.min(embedRows, out.rows - first)],
          known ? ids.subarray(first, first + embedRows) : [],
        );
      }
    }
  }
}

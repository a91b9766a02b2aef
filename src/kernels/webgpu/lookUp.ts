import type { Context } from "./context.js";
import type { GpuMatrix } from "./matrix.js";
import type { GpuActivation } from "./storage.js";
import { embedRows, embedThreads } from "./wgsl/embed.js";

/** out[r] = row ids[r] of the first part of `table`. */
export function lookUp({ recorder }: Context, out: GpuActivation, table: GpuMatrix, ids: Uint32Array): void {
  const { cols, groups, chunks, kernels } = table;
  const { rows } = table.parts[0];
  for (const { memory, runs } of chunks) {
    for (const { part, firstTile, tiles, unitBase } of runs) {
      if (part !== 0) continue;
      for (let first = 0; first < ids.length; first += embedRows) {
        const some = ids.subarray(first, first + embedRows);
        const outOffset = out.offset + first * out.stride;
        recorder.run(
          kernels.embed,
          { cols, rows, groups, firstTile, tiles, unitBase, outOffset, outStride: out.stride },
          { outs: out.memory, units: memory },
          [Math.ceil(cols / embedThreads), some.length],
          some,
        );
      }
    }
  }
}

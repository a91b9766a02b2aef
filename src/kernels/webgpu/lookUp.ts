import type { Context } from "./context.js";
import type { GpuMemory } from "./device.js";
import type { GpuMatrix } from "./matrix.js";
import type { GpuActivation } from "./storage.js";
import { embedRows, embedThreads } from "./wgsl/embed.js";

/** out[r] = row ids[r] of the first part of `table`. */
export function lookUp(context: Context, out: GpuActivation, table: GpuMatrix, ids: Uint32Array): void {
  enqueue(context, out, table, (first) => ({ ids: ids.subarray(first, first + embedRows) }));
}

/** The same with ids that are on the device, the first of each two words of `pairs`. */
export function lookUpChosen(context: Context, out: GpuActivation, table: GpuMatrix, pairs: GpuMemory): void {
  enqueue(context, out, table, () => ({ ids: [], pairs }));
}

function enqueue(
  { recorder, nothing }: Context,
  out: GpuActivation,
  { cols, groups, chunks, kernels, parts }: GpuMatrix,
  idsFrom: (first: number) => { ids: ArrayLike<number>; pairs?: GpuMemory },
): void {
  const { rows } = parts[0];
  for (const { memory, runs } of chunks) {
    for (const { part, firstTile, tiles, unitBase } of runs) {
      if (part !== 0) continue;
      for (let first = 0; first < out.rows; first += embedRows) {
        const { ids, pairs } = idsFrom(first);
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
            usePairs: pairs === undefined ? 0 : 1,
          },
          { outs: out.memory, units: memory, pairs: pairs ?? nothing },
          [Math.ceil(cols / embedThreads), Math.min(embedRows, out.rows - first)],
          ids,
        );
      }
    }
  }
}

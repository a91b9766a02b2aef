import type { KvMoves } from "../kv.js";
import type { Context } from "./context.js";
import type { GpuMemory } from "./device.js";
import type { GpuKvCache, GpuRopeTable } from "./storage.js";
import { elementThreads } from "./wgsl/elementwise.js";
import { moveKv, moveWords } from "./wgsl/kv.js";

const kernels = [false, true].map((turned) => [false, true].map((weighed) => moveKv(turned, weighed)));

/** Enqueues moves of one layer. @param upload puts words into memory of their own */
export function moveEntries(
  { recorder }: Context,
  cache: GpuKvCache,
  layer: number,
  { heads, from, to, turn }: KvMoves,
  upload: (words: Uint32Array<ArrayBuffer>) => GpuMemory,
): void {
  const spec = cache.spec.layers[layer];
  const words = new Uint32Array(heads.length * moveWords);
  for (const [m, head] of heads.entries()) words.set([head, from[m], to[m], turn?.by[m] ?? 0], m * moveWords);
  const moves = upload(words);
  const table = turn?.table as GpuRopeTable | undefined;
  recorder.run(
    kernels[Number(turn !== undefined)][Number(cache.spec.mass !== undefined)],
    { heads: spec.heads, keyDim: spec.key, valueDim: spec.value, slots: cache.spec.slots },
    {
      moves,
      keys: cache.keys[layer],
      values: cache.values[layer],
      cosines: table?.cos ?? moves,
      sines: table?.sin ?? moves,
      mass: cache.mass[layer] ?? moves,
    },
    [Math.ceil(Math.max(spec.key, spec.value) / elementThreads), heads.length],
  );
  recorder.freeLater(moves);
}

import { pairPlaces } from "../handles.js";
import { type KvMoves, keptValue } from "../kv.js";
import type { Context } from "./context.js";
import type { GpuMemory } from "./device.js";
import type { GpuActivation, GpuKvCache, GpuRopeTable } from "./storage.js";
import { elementThreads } from "./wgsl/elementwise.js";
import { appendKv, clearMass, moveKv, moveWords } from "./wgsl/kv.js";

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
    {
      heads: spec.heads,
      keyDim: spec.key,
      valueDim: keptValue(spec),
      slots: cache.spec.slots,
      ...(table === undefined ? { first: 0, half: 0, step: 0, apart: 0 } : pairPlaces(table)),
    },
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

/** Enqueues `Backend.appendKv`. */
export function appendRows(
  context: Context,
  cache: GpuKvCache,
  layer: number,
  k: GpuActivation,
  v: GpuActivation | undefined,
  start: number,
): void {
  clearMassOf(context, cache, layer, start, k.rows);
  context.recorder.run(
    appendKv,
    {
      keyCols: k.cols,
      valueCols: v?.cols ?? 0,
      start,
      kOffset: k.offset,
      kStride: k.stride,
      vOffset: v?.offset ?? 0,
      vStride: v?.stride ?? 0,
    },
    { ks: k.memory, vs: (v ?? k).memory, keys: cache.keys[layer], values: cache.values[layer] },
    [Math.ceil(Math.max(k.cols, v?.cols ?? 0) / elementThreads), k.rows],
  );
}

/** Enqueues that new slots have no mass, in a cache that has any. */
export function clearMassOf(
  { recorder }: Context,
  { spec, mass }: GpuKvCache,
  layer: number,
  start: number,
  count: number,
): void {
  if (spec.mass === undefined) return;
  const { slots, layers } = spec;
  recorder.run(clearMass, { start, count, slots }, { mass: mass[layer] }, [
    Math.ceil(count / elementThreads),
    layers[layer].heads,
  ]);
}

/** `Backend.readMass`. */
export function readMass({ recorder }: Context, { spec, mass }: GpuKvCache): Promise<Float32Array[]> {
  return Promise.all(
    mass.map(async (memory, layer) => {
      const byteLength = 4 * spec.slots * spec.layers[layer].heads;
      return new Float32Array(await recorder.read(memory, 0, byteLength));
    }),
  );
}

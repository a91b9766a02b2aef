import { pairPlaces } from "../handles.js";
import { countOf, type KvMoves, keptValue, slotsOf } from "../kv.js";
import { codedWords, ringSlots, rowWords } from "../kvCodes.js";
import type { Context } from "./context.js";
import type { GpuMemory } from "./device.js";
import { made } from "./made.js";
import type { GpuActivation, GpuKvCache, GpuRopeTable } from "./storage.js";
import { elementGroups } from "./wgsl/elementwise.js";
import { appendKv, clearMass, moveKv, moveWords } from "./wgsl/kv.js";
import { codeKv, codesName, moveCodes, ringAppend } from "./wgsl/kvCodes.js";

const kernels = [false, true].map((turned) => [false, true].map((weighed) => moveKv(turned, weighed)));

const codeMoves = [false, true].map(moveCodes);

/** Where scales and rings begin, and what is read where, in a layer of codes; all 0 in one of f32. */
export function codedPlaces({ spec, coded }: GpuKvCache, layer: number) {
  const { codes, layers } = spec;
  const slots = slotsOf(spec, layer);
  const places = { capacity: slots, coded: 0, ring: 0, keyScalesAt: 0, keyRingAt: 0, valueScalesAt: 0, valueRingAt: 0 };
  if (codes === undefined) return places;
  const kept = layers[layer];
  const { heads } = kept;
  const ofKeys = codedWords(codes, "key", kept.key, slots);
  const ofValues = codedWords(codes, "value", keptValue(kept), slots);
  return {
    capacity: slots,
    coded: coded.of(layer),
    ring: ringSlots(codes),
    keyScalesAt: heads * ofKeys.codes,
    keyRingAt: heads * (ofKeys.codes + ofKeys.scales),
    valueScalesAt: heads * ofValues.codes,
    valueRingAt: heads * (ofValues.codes + ofValues.scales),
  };
}

/** Enqueues a copy of the first slots of every layer, which lie at the beginning of each buffer. */
export function copyEntries(
  { recorder }: Context,
  from: GpuKvCache,
  to: GpuKvCache,
  slots: number | readonly number[],
): void {
  for (const [layer, kept] of from.spec.layers.entries()) {
    const count = countOf(slots, layer);
    if (count === 0) continue;
    recorder.copy(from.keys[layer], 0, to.keys[layer], 0, 4 * count * kept.heads * kept.key);
    const width = keptValue(kept);
    if (width > 0) recorder.copy(from.values[layer], 0, to.values[layer], 0, 4 * count * kept.heads * width);
  }
}

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
  if (cache.spec.codes !== undefined) {
    const { codes, mass } = cache.spec;
    const slots = slotsOf(cache.spec, layer);
    const [keyWords, valueWords] = [rowWords(codes.bits, spec.key), rowWords(codes.bits, keptValue(spec))];
    const { keyScalesAt, valueScalesAt } = codedPlaces(cache, layer);
    recorder.run(
      codeMoves[Number(mass !== undefined)],
      { capacity: slots, keyWords, valueWords, keyScalesAt, valueScalesAt },
      { moves, keys: cache.keys[layer], values: cache.values[layer], mass: cache.mass[layer] ?? moves },
      [elementGroups(Math.max(keyWords, valueWords)), heads.length],
    );
    recorder.freeLater(moves);
    return;
  }
  const table = turn?.table as GpuRopeTable | undefined;
  recorder.run(
    kernels[Number(turn !== undefined)][Number(cache.spec.mass !== undefined)],
    {
      heads: spec.heads,
      keyDim: spec.key,
      valueDim: keptValue(spec),
      slots: slotsOf(cache.spec, layer),
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
    [elementGroups(Math.max(spec.key, spec.value)), heads.length],
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
  if (cache.spec.codes !== undefined) {
    appendCodes(context, cache, layer, k, v, start);
    return;
  }
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
    [elementGroups(Math.max(k.cols, v?.cols ?? 0)), k.rows],
  );
}

/** Kernels by what they were made for. */
const codeKernels = new Map<string, ReturnType<typeof codeKv>>();
const ringKernels = new Map<number, ReturnType<typeof ringAppend>>();

function appendCodes(
  { recorder }: Context,
  cache: GpuKvCache,
  layer: number,
  k: GpuActivation,
  v: GpuActivation | undefined,
  start: number,
): void {
  const { layers, codes } = cache.spec;
  const { heads } = layers[layer];
  const { kivi, bits } = codes!;
  const grouped = kivi === undefined ? undefined : cache.coded.advance(layer, start, k.rows);
  const places = codedPlaces(cache, layer);
  const { capacity, coded, ring } = places;
  for (const [part, rows, held] of [
    ["key", k, cache.keys[layer]],
    ["value", v, cache.values[layer]],
  ] as const) {
    if (rows === undefined) continue;
    const width = layers[layer][part];
    const [scalesAt, ringAt] = [places[`${part}ScalesAt`], places[`${part}RingAt`]];
    const code = (
      source: typeof held,
      count: number,
      from: { offset: number; rowStride: number; headStride: number; start: number },
    ) =>
      recorder.run(
        made(codeKernels, `${part} ${codesName(codes!)} ${width}`, () => codeKv(codes!, part, width)),
        { capacity, coded, ring, scalesAt, heads, ...from },
        { source, held },
        [elementGroups(heads * rowWords(bits, width)), count],
      );
    const given = { offset: rows.offset, rowStride: rows.stride, headStride: width, start };
    if (grouped === undefined) {
      code(rows.memory, rows.rows, given);
      continue;
    }
    const { from, to } = grouped;
    if (to > from) code(held, to - from, { offset: ringAt, rowStride: width, headStride: ring * width, start: from });
    recorder.run(
      made(ringKernels, width, () => ringAppend(width)),
      { ring, ringAt, heads, ...given },
      { source: rows.memory, held },
      [elementGroups(heads * width), rows.rows],
    );
  }
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
  const { layers } = spec;
  recorder.run(clearMass, { start, count, slots: slotsOf(spec, layer) }, { mass: mass[layer] }, [
    elementGroups(count),
    layers[layer].heads,
  ]);
}

/** `Backend.readMass`. */
export function readMass({ recorder }: Context, { spec, mass }: GpuKvCache): Promise<Float32Array[]> {
  return Promise.all(
    mass.map(async (memory, layer) => {
      const byteLength = 4 * slotsOf(spec, layer) * spec.layers[layer].heads;
      return new Float32Array(await recorder.read(memory, 0, byteLength));
    }),
  );
}

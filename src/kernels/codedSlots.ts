import { UsageError } from "../core/index.js";
import type { Activation, AttentionOptions } from "./backend.js";
import { type KvCache, type KvCacheSpec, type KvLayer, keptValue, slotsOf } from "./kv.js";
import { codedWords, kiviCoded, kiviGroup, rowWords } from "./kvCodes.js";
import { kvBytesRead, rowsOfGroup } from "./sight.js";

/** How many slots of each layer hold codes, as tokens come. */
export class CodedSlots {
  readonly #coded: number[];

  constructor(readonly spec: KvCacheSpec) {
    this.#coded = spec.layers.map(() => 0);
  }

  /** Slots [0, here) of a layer are codes. */
  of(layer: number): number {
    const { codes } = this.spec;
    return codes !== undefined && codes.kivi === undefined ? slotsOf(this.spec, layer) : this.#coded[layer];
  }

  /**
   * Before `rows` tokens come to a layer of KIVI from slot `start` on.
   * @returns slots whose f32 numbers are to become codes first: whole groups
   * @throws UsageError for more rows than the cache was made for, and for a start among the codes but the beginning
   */
  advance(layer: number, start: number, rows: number): { from: number; to: number } {
    const { residual, rows: most } = this.spec.codes!.kivi!;
    if (rows > most) throw new UsageError(`appendKv: ${rows} rows in a cache for passes of ${most}`);
    let from = this.#coded[layer];
    if (start < from) {
      if (start > 0) throw new UsageError(`appendKv: slot ${start}, and those before ${from} are codes in groups`);
      from = 0;
    }
    const to = Math.max(from, kiviCoded(residual, start));
    this.#coded[layer] = to;
    return { from, to };
  }
}

/** What `BackendCounters.kvBytesRead` counts of one call of `attention`. */
export function attentionBytes(
  { spec, coded }: Pick<KvCache, "spec"> & { coded: CodedSlots },
  layer: number,
  rows: number,
  { sight, start, queryHeads }: Pick<AttentionOptions, "sight" | "start" | "queryHeads">,
): number {
  const kept = spec.layers[layer];
  const bytesOf = entryBytes(spec, kept, coded.of(layer));
  return kvBytesRead(sight?.spec ?? { kind: "causal" }, { rows, start, queryHeads }, kept, bytesOf);
}

/** What it counts of one call of `readKeys`. */
export function keyBytes(
  { spec, coded }: Pick<KvCache, "spec"> & { coded: CodedSlots },
  layer: number,
  rows: number,
  start: number,
): number {
  const { heads, key } = spec.layers[layer];
  return heads * entryBytes(spec, { heads, key, value: 0 }, coded.of(layer))(start, start + rows);
}

/** What it counts of one call of `headScores`, in which 16 rows share what is read for them. */
export const scoreBytes = (q: Activation, k: Activation, stride = 1): number =>
  Math.ceil(q.rows / stride / rowsOfGroup) * 4 * k.rows * k.cols;

/** Bytes that one key head's keys and values in slots [from, to) take, of which those before `coded` are codes. */
function entryBytes({ codes }: KvCacheSpec, kept: KvLayer, coded: number): (from: number, to: number) => number {
  const [key, value] = [kept.key, keptValue(kept)];
  if (codes === undefined) return (from, to) => 4 * (to - from) * (key + value);
  const perSlot = (part: "key" | "value", width: number) => {
    const { scales } = codedWords(codes, part, width, kiviGroup);
    return rowWords(codes.bits, width) + scales / kiviGroup;
  };
  const words = perSlot("key", key) + perSlot("value", value);
  return (from, to) => {
    const asCodes = Math.max(0, Math.min(to, coded) - from);
    return 4 * (asCodes * words + (to - from - asCodes) * (key + value));
  };
}

import { UsageError } from "../../core/index.js";
import type { PackedFormatId } from "../../pack/index.js";
import type { Activation, Matrix, MatrixPart, RopeTable, Vector } from "../backend.js";
import { CodedSlots } from "../codedSlots.js";
import { type KvCache, type KvCacheSpec, keptValue, kvCacheBytes, slotsOf } from "../kv.js";
import { View } from "../views.js";
import { CodedRows, type KvRows, PlainRows } from "./kvRows.js";

/** One allocated block of f32; activations and their views point into it. */
export interface Block {
  data: Float32Array;
  released: boolean;
}

export class ReferenceActivation extends View<Block> {
  /** f32 [cols], row r, sharing storage. */
  row(r: number): Float32Array {
    const begin = this.offset + r * this.stride;
    return this.block.data.subarray(begin, begin + this.cols);
  }
}

/** The backend's own view of a handle. @throws UsageError for a foreign or released one. */
export function own(activation: Activation): ReferenceActivation {
  if (!(activation instanceof ReferenceActivation)) throw new UsageError("an activation of another backend");
  if (activation.block.released) throw new UsageError("an activation that was released");
  return activation;
}

export interface ReferenceVector extends Vector {
  readonly values: Float32Array;
}

export interface ReferenceRopeTable extends RopeTable {
  /** f32 [positions, width / 2] each. */
  readonly cos: Float32Array;
  readonly sin: Float32Array;
}

export interface ReferencePart extends MatrixPart {
  /** f32 [rows, cols]: what the packed bytes stand for. */
  readonly values: Float32Array;
  /** The packed bytes, kept by formats that leave zeros out, whose reads depend on them. */
  readonly packed?: Uint8Array;
}

export interface ReferenceMatrix extends Matrix {
  readonly format: PackedFormatId;
  readonly parts: readonly ReferencePart[];
}

/** Keys and values of every layer, and mass, f32 [layers][heads, slots]. */
export class ReferenceKvCache implements KvCache {
  readonly byteLength: number;
  readonly keys: KvRows[];
  readonly values: KvRows[];
  readonly mass: Float32Array[];
  readonly coded: CodedSlots;

  constructor(
    readonly spec: KvCacheSpec,
    readonly onDispose: (cache: ReferenceKvCache) => void,
  ) {
    const { layers, codes } = spec;
    const rows = (part: "key" | "value") =>
      layers.map((layer, i) => {
        const slots = slotsOf(spec, i);
        const width = part === "key" ? layer.key : keptValue(layer);
        return codes === undefined
          ? new PlainRows(slots, layer.heads, width)
          : new CodedRows(codes, part, slots, layer.heads, width);
      });
    this.keys = rows("key");
    this.values = rows("value");
    this.mass = layers.map(({ heads }, i) => new Float32Array(spec.mass === undefined ? 0 : slotsOf(spec, i) * heads));
    this.coded = new CodedSlots(spec);
    this.byteLength = kvCacheBytes(spec);
  }

  /** f32 [slots], sharing storage; empty without mass. */
  massOf(layer: number, head: number): Float32Array {
    const slots = slotsOf(this.spec, layer);
    return this.mass[layer].subarray(head * slots, (head + 1) * slots);
  }

  [Symbol.dispose](): void {
    this.onDispose(this);
    this.keys.length = 0;
    this.values.length = 0;
    this.mass.length = 0;
  }
}

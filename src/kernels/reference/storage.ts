import { UsageError } from "../../core/index.js";
import type { PackedFormatId } from "../../pack/index.js";
import type { Activation, KvCache, KvCacheSpec, Matrix, MatrixPart, RopeTable, Vector } from "../backend.js";
import { View } from "../views.js";

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
  /** f32 [positions, headDim / 2] each. */
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

/** Keys and values, f32 [layers][capacity, kvHeads * headDim] each. */
export class ReferenceKvCache implements KvCache {
  readonly byteLength: number;
  readonly keys: Float32Array[];
  readonly values: Float32Array[];

  constructor(
    readonly spec: KvCacheSpec,
    readonly onDispose: (cache: ReferenceKvCache) => void,
  ) {
    const size = spec.capacity * spec.kvHeads * spec.headDim;
    this.keys = Array.from({ length: spec.layers }, () => new Float32Array(size));
    this.values = Array.from({ length: spec.layers }, () => new Float32Array(size));
    this.byteLength = 2 * 4 * spec.layers * size;
  }

  [Symbol.dispose](): void {
    this.onDispose(this);
    this.keys.length = 0;
    this.values.length = 0;
  }
}

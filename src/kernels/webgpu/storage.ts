import { DeviceError, UsageError } from "../../core/index.js";
import type { Activation, RopeTable, Vector } from "../backend.js";
import { CodedSlots } from "../codedSlots.js";
import { type KvCache, type KvCacheSpec, type KvLayer, kvCacheBytes } from "../kv.js";
import { codedWords } from "../kvCodes.js";
import type { Sight } from "../sight.js";
import { View } from "../views.js";
import type { Context } from "./context.js";
import { type Device, type GpuMemory, usage } from "./device.js";
import type { KeptKv } from "./keptKv.js";
import type { Recorder } from "./recorder.js";

/** One allocated block of f32; activations and their views point into it. */
export interface Block {
  readonly memory: GpuMemory;
  /** What was asked for; the buffer behind it may be larger. */
  readonly byteLength: number;
  released: boolean;
}

export class GpuActivation extends View<Block> {
  get memory(): GpuMemory {
    return this.block.memory;
  }
}

/** The backend's own view of a handle. @throws UsageError for a foreign or released one. */
export function own(activation: Activation): GpuActivation {
  if (!(activation instanceof GpuActivation)) throw new UsageError("an activation of another backend");
  if (activation.block.released) throw new UsageError("an activation that was released");
  return activation;
}

/** f32 [rows * cols], a copy; waits for everything enqueued. */
export async function readRows({ recorder }: Context, activation: GpuActivation): Promise<Float32Array> {
  const { memory, offset, stride, rows, cols } = activation;
  const span = (rows - 1) * stride + cols;
  const values = new Float32Array(await recorder.read(memory, offset * 4, span * 4));
  if (stride === cols) return values;
  const packed = new Float32Array(rows * cols);
  for (let r = 0; r < rows; r++) packed.set(values.subarray(r * stride, r * stride + cols), r * cols);
  return packed;
}

export interface GpuVector extends Vector {
  readonly memory: GpuMemory;
}

export interface GpuRopeTable extends RopeTable {
  /** f32 [positions, width / 2] each. */
  readonly cos: GpuMemory;
  readonly sin: GpuMemory;
}

export interface GpuSight extends Sight {
  /** Of a block mask, what `blockMaskWords` makes of it. */
  readonly words?: GpuMemory;
}

/**
 * Keys and values, f32 [slots, heads * width] per layer, which are one where values lie in keys; and mass, f32 [heads,
 * slots]. Of codes a layer's keys, and its values, are the parts of `codedWords`, each for all heads, one behind the other.
 */
export class GpuKvCache implements KvCache {
  readonly byteLength: number;
  readonly keys: GpuMemory[];
  readonly values: GpuMemory[];
  readonly mass: GpuMemory[];
  readonly coded: CodedSlots;

  constructor(
    readonly spec: KvCacheSpec,
    kept: KeptKv,
    readonly onDispose: (cache: GpuKvCache) => void,
  ) {
    const { layers, codes } = spec;
    const { device } = kept;
    const most = device.limits.maxStorageBufferBindingSize;
    const slotsIn = ({ slots = spec.slots }: KvLayer) => slots;
    const wordsOf = (layer: KvLayer, part: "key" | "value") =>
      layer.heads *
      (codes === undefined ? slotsIn(layer) * layer[part] : codedWords(codes, part, layer[part], slotsIn(layer)).all);
    for (const layer of layers) {
      const layerBytes = 4 * Math.max(wordsOf(layer, "key"), wordsOf(layer, "value"));
      if (layerBytes <= most) continue;
      throw new DeviceError(
        `the keys of one layer take ${layerBytes} bytes; this GPU binds at most ${most}; use a smaller capacity`,
      );
    }
    this.keys = layers.map((layer, i) => kept.take(4 * wordsOf(layer, "key"), `keys ${i}`));
    this.values = layers.map((layer, i) =>
      layer.valueInKey ? this.keys[i] : kept.take(4 * wordsOf(layer, "value"), `values ${i}`),
    );
    this.mass =
      spec.mass === undefined
        ? []
        : layers.map((layer, i) =>
            device.allocate(4 * slotsIn(layer) * layer.heads, usage.storage | usage.copySrc, `mass ${i}`),
          );
    this.coded = new CodedSlots(spec);
    this.byteLength = kvCacheBytes(spec);
  }

  /** Of keys and values, each once. */
  get entries(): readonly GpuMemory[] {
    return [...new Set([...this.keys, ...this.values])];
  }

  [Symbol.dispose](): void {
    this.onDispose(this);
    this.keys.length = 0;
    this.values.length = 0;
    this.mass.length = 0;
  }
}

/**
 * Buffers of released activations are kept for the next `allocate` up to this many bytes: to allocate those of a prompt anew for
 * every layer takes longer than many a product.
 */
const keptBytes = 256 * 2 ** 20;

const activationUsage = usage.storage | usage.copySrc | usage.copyDst;

/** Activations come and go with every token: their buffers are used again, by size. */
export class ActivationPool {
  readonly #free: GpuMemory[] = [];
  #freeBytes = 0;
  #liveBytes = 0;

  constructor(
    readonly device: Device,
    readonly recorder: Recorder,
  ) {}

  get liveBytes(): number {
    return this.#liveBytes;
  }

  take(rows: number, cols: number): GpuActivation {
    this.device.throwIfGone();
    const byteLength = rows * cols * 4;
    const limit = this.device.limits.maxStorageBufferBindingSize;
    if (byteLength > limit) {
      throw new DeviceError(`an activation of ${byteLength} bytes; this GPU binds at most ${limit}; use fewer rows`);
    }
    const size = Math.min(roundUp(byteLength), limit);
    const found = this.#free.findIndex((memory) => memory.byteLength === size);
    const memory =
      found < 0 ? this.device.allocate(size, activationUsage, "activation") : this.#free.splice(found, 1)[0];
    if (found >= 0) this.#freeBytes -= size;
    this.#liveBytes += byteLength;
    return new GpuActivation({ memory, byteLength, released: false }, 0, cols, rows, cols);
  }

  giveBack({ block }: GpuActivation): void {
    block.released = true;
    this.#liveBytes -= block.byteLength;
    this.#free.push(block.memory);
    this.#freeBytes += block.memory.byteLength;
    while (this.#freeBytes > keptBytes) {
      const oldest = this.#free.shift()!;
      this.#freeBytes -= oldest.byteLength;
      this.recorder.freeLater(oldest);
    }
  }
}

/** The next of 4, 5, 6, 7, 8, 10, 12, 14, 16 … × 64 bytes, so that nearly equal sizes share buffers. */
function roundUp(byteLength: number): number {
  const step = 2 ** Math.max(6, Math.floor(Math.log2(byteLength)) - 2);
  return Math.ceil(byteLength / step) * step;
}

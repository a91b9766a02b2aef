import type { Checkpoint } from "../../src/io/index.js";
import { type Artifact, openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { byteLengthOf, fromFloat32, type Tensor, toFloat32 } from "../../src/tensor/index.js";
import { path } from "../golden/golden.js";

/** A checkpoint held in memory, to be changed by tests, that notes what is read of it. */
export class MemoryCheckpoint implements Checkpoint {
  readonly location = "memory";
  readonly files: Checkpoint["files"] = { location: "memory", open: async () => undefined, close: async () => {} };
  readonly reads: { name: string; byteOffset: number; byteLength: number }[] = [];

  readonly warnings = [];

  artifact?: Artifact;

  constructor(
    public config: Record<string, unknown>,
    readonly tensors: Map<string, Tensor>,
  ) {}

  /** One of the golden checkpoints. */
  static async golden(name: string): Promise<MemoryCheckpoint> {
    const stored = await openCheckpoint(directoryFiles(path(`arch/${name}`)));
    const tensors = new Map<string, Tensor>();
    for (const info of stored.tensors.values()) {
      tensors.set(info.name, {
        name: info.name,
        dtype: info.dtype,
        shape: info.shape,
        bytes: await stored.read(info.name),
      });
    }
    await stored.close();
    return new MemoryCheckpoint({ ...(stored.config as Record<string, unknown>) }, tensors);
  }

  values(name: string): Float32Array {
    const { dtype, bytes } = this.tensors.get(name)!;
    return toFloat32(dtype, bytes);
  }

  set(name: string, shape: readonly number[], values: Float32Array, dtype: "F32" | "F16" | "BF16" = "F32"): void {
    this.tensors.set(name, { name, dtype, shape, bytes: fromFloat32(dtype, values) });
  }

  async read(name: string, byteOffset = 0, byteLength?: number, into?: Uint8Array): Promise<Uint8Array> {
    const tensor = this.tensors.get(name)!;
    const length = byteLength ?? byteLengthOf(tensor) - byteOffset;
    if (byteOffset + length > byteLengthOf(tensor)) throw new RangeError(`${name}: a read beyond the end`);
    if (into !== undefined && into.byteLength !== length)
      throw new RangeError(`${name}: ${into.byteLength} ≠ ${length}`);
    this.reads.push({ name, byteOffset, byteLength: length });
    const target = into ?? new Uint8Array(length);
    target.set(tensor.bytes.subarray(byteOffset, byteOffset + length));
    return target;
  }

  async readFloat32(name: string): Promise<Float32Array> {
    await this.read(name);
    return this.values(name);
  }

  async readScales(name: string): Promise<Float32Array> {
    throw new RangeError(`${name} has no grid`);
  }

  async readJson(): Promise<undefined> {
    return undefined;
  }

  async close(): Promise<void> {}
}

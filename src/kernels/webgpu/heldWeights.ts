import type { Matrix } from "../handles.js";
import type { Context } from "./context.js";
import { type GpuMemory, usage } from "./device.js";
import type { GpuMatrix } from "./matrix.js";
import { type GpuSparseMatrix, isSparseMatrix } from "./sparseMatrix.js";

/** Weights on a GPU: how many bytes they are, and how they are given back. */
export class HeldWeights implements Disposable {
  byteLength = 0;
  #disposed = false;

  constructor(readonly context: Context) {}

  /** f32 numbers in memory of their own. */
  upload(values: Float32Array, label: string): GpuMemory {
    const { device } = this.context;
    const memory = device.allocate(values.byteLength, usage.storage | usage.copyDst, label);
    device.gpu.queue.writeBuffer(memory.buffer, 0, values as Float32Array<ArrayBuffer>);
    this.byteLength += values.byteLength;
    return memory;
  }

  /** Gives matrices back, which may lie together in one buffer. */
  freeMatrices(matrices: readonly Matrix[]): void {
    const memories = matrices.flatMap((matrix) => {
      const chunks = (matrix as GpuMatrix | GpuSparseMatrix).chunks.map(({ memory }) => memory);
      return isSparseMatrix(matrix) ? [...chunks, matrix.places] : chunks;
    });
    const byteLength = matrices.reduce((sum, matrix) => sum + matrix.byteLength, 0);
    this.free(memories, byteLength);
  }

  /** Frees memory once what is enqueued has been submitted. */
  free(memories: readonly GpuMemory[], byteLength: number): void {
    if (this.#disposed) return;
    for (const memory of new Set(memories)) this.context.recorder.freeLater(memory);
    this.byteLength -= byteLength;
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    this.byteLength = 0;
  }
}

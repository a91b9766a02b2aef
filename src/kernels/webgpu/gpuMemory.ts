/** A buffer and the number by which dispatches that use it are found again. */
export interface GpuMemory {
  readonly id: number;
  readonly buffer: GPUBuffer;
  readonly byteLength: number;
}

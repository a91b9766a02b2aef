/// <reference types="@webgpu/types" />

/** An open entry point to the machine's GPUs. */
export interface GpuEntry {
  readonly gpu: GPU;
  /** Whether a processor is busy while something is waited for. */
  readonly waitsBusily: boolean;
  /** Lets the process end; nothing made from `gpu` may be used afterwards. */
  release(): void;
}

/// <reference types="@webgpu/types" />

import type { Turns } from "./naps.js";

/** An open entry point to the machine's GPUs. */
export interface GpuEntry {
  readonly gpu: GPU;
  /** How to wait where that would keep a processor busy; undefined where it does not. */
  readonly turns: Turns | undefined;
  /** Lets the process end; nothing made from `gpu` may be used afterwards. */
  release(): void;
}

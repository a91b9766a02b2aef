import type { GradientSource } from "../pipeline/index.js";
import { type EngineDevice, startEngine } from "./engine/engine.js";

/**
 * Gradients of language models for compression: of every model that can be trained. One block is held at a time, with what enters
 * each block of all windows; the autograd engine is loaded when gradients are first asked for.
 * @param device where they are computed; WebAssembly by default, on one thread
 */
export const gradientSource = (device: EngineDevice = "wasm"): GradientSource => ({
  arithmetic: `autograd on ${device}`,
  async *blockGradients(...asked) {
    await startEngine(device);
    const { blockGradients } = await import("./trace/blockGradients.js");
    yield* blockGradients(...asked);
  },
  async *unitGradients(...asked) {
    await startEngine(device);
    const { unitGradients } = await import("./trace/blockGradients.js");
    yield* unitGradients(...asked);
  },
});

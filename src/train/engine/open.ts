import type { ModelConfig } from "../../io/index.js";
import type { DecoderOptions } from "../models/decoder.js";
import type { Objective } from "../objective.js";
import type { ParameterInfo } from "../values.js";
import { type EngineDevice, startEngine } from "./engine.js";

/**
 * The next-token loss of a decoder on a device: on WebGPU the step written by hand where it does the model, everything else
 * compiled by the engine, which is loaded when first needed.
 * @param window tokens of every sequence
 * @throws DeviceError, UsageError for an activation that cannot be trained
 */
export async function decoderObjective(
  config: ModelConfig,
  parameters: readonly ParameterInfo[],
  window: number,
  device: EngineDevice = "wasm",
  options: DecoderOptions = {},
): Promise<Objective> {
  const plain = Object.values(options).every((option) => option === undefined);
  if (device === "webgpu" && plain) {
    const { gpuDecoder } = await import("./gpu/gpuDecoder.js");
    const objective = await gpuDecoder(config, parameters, window);
    if (objective !== undefined) return objective;
  }
  await startEngine(device);
  const [{ tracedObjective }, { decoder }] = await Promise.all([
    import("./tracedObjective.js"),
    import("../models/decoder.js"),
  ]);
  return tracedObjective(decoder(config, parameters, window, options));
}

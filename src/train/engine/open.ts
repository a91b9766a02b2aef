import type { ModelConfig } from "../../arch/index.js";
import type { DecoderOptions } from "../models/decoderOptions.js";
import type { EncoderConfig } from "../models/encoderParameters.js";
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

/**
 * The loss of an encoder that classifies on a device; written by hand on WebGPU.
 * @throws DeviceError
 */
export async function encoderObjective(config: EncoderConfig, device: EngineDevice = "wasm"): Promise<Objective> {
  if (device === "webgpu") {
    const { gpuEncoder } = await import("./gpu/gpuEncoder.js");
    const objective = await gpuEncoder(config);
    if (objective !== undefined) return objective;
  }
  await startEngine(device);
  const [{ tracedObjective }, { encoder }] = await Promise.all([
    import("./tracedObjective.js"),
    import("../models/encoder.js"),
  ]);
  return tracedObjective(encoder(config));
}

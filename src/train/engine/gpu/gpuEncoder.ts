import { openCompute } from "../../../kernels/index.js";
import { type EncoderConfig, encoderParameters, sinusoids } from "../../models/encoderParameters.js";
import type { Objective } from "../../objective.js";
import { planEncoder } from "./encoderPlan.js";
import { EncoderStep } from "./encoderStep.js";
import { GpuObjective } from "./gpuObjective.js";
import { filled } from "./memory.js";

/**
 * The loss of an encoder that classifies on a GPU, forward and backward written out by hand.
 * @returns undefined for an encoder that it does not do (`planEncoder`)
 * @throws DeviceError when there is no GPU
 */
export async function gpuEncoder(config: EncoderConfig): Promise<Objective | undefined> {
  const parameters = encoderParameters(config);
  const plan = planEncoder(config, parameters);
  if (plan === undefined) return undefined;
  const compute = await openCompute();
  const positions = filled(compute, sinusoids(config.length, config.hiddenSize), "positions");
  return new GpuObjective(compute, {
    parameters,
    plan,
    window: config.length,
    begin: (memory, sequences) => new EncoderStep(memory, plan, config, positions, sequences),
  });
}

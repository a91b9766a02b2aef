import { type ModelConfig, type ModelSpec, modelConfigOf, ropeTables } from "../../../arch/index.js";
import { openCompute } from "../../../kernels/index.js";
import type { Objective } from "../../objective.js";
import type { ParameterInfo } from "../../values.js";
import { DecoderStep } from "./decoderStep.js";
import { GpuObjective } from "./gpuObjective.js";
import { filled } from "./memory.js";
import { planDecoder } from "./plan.js";

/**
 * The next-token loss of a Llama-like decoder on a GPU, forward and backward written out by hand.
 * @returns undefined for a decoder that it does not do (`planDecoder`)
 * @param window tokens of every sequence
 * @throws DeviceError when there is no GPU
 */
export async function gpuDecoder(
  spec: ModelSpec,
  parameters: readonly ParameterInfo[],
  window: number,
): Promise<Objective | undefined> {
  const config = modelConfigOf(spec);
  const plan = planDecoder(config, parameters, window);
  if (plan === undefined) return undefined;
  const compute = await openCompute();
  const turns = filled(compute, turnsOf(config, window), "turns");
  return new GpuObjective(compute, {
    parameters,
    plan,
    window,
    begin: (memory, sequences) => new DecoderStep(memory, plan, config, turns, sequences, window),
  });
}

/** cos and sin, one after the other, of every position and pair of a head. */
function turnsOf({ rope, headDim }: ModelConfig, positions: number): Float32Array {
  const { cos, sin } = ropeTables(rope, headDim, positions);
  return Float32Array.from({ length: 2 * cos.length }, (_, i) => (i % 2 === 0 ? cos : sin)[Math.floor(i / 2)]);
}

import { type ModelConfig, ropeFrequencies } from "../../../arch/index.js";
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
  config: ModelConfig,
  parameters: readonly ParameterInfo[],
  window: number,
): Promise<Objective | undefined> {
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
  const frequencies = ropeFrequencies(rope, headDim);
  const pairs = headDim / 2;
  return Float32Array.from({ length: 2 * positions * pairs }, (_, i) => {
    const angle = Math.floor(i / 2 / pairs) * frequencies[Math.floor(i / 2) % pairs];
    return i % 2 === 0 ? Math.cos(angle) : Math.sin(angle);
  });
}

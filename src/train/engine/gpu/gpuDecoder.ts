import type { ModelSpec } from "../../../arch/index.js";
import type { RouterOptions } from "../../models/routerOptions.js";
import type { Objective } from "../../objective.js";
import type { ParameterInfo } from "../../values.js";
import { recordEmbedding, recordHead } from "./ends.js";
import { openGpuObjective } from "./gpuObjective.js";
import { Layout } from "./layout.js";
import { Recording } from "./recording.js";
import { type Schedule, scheduleOf } from "./schedule.js";
import { recordSteps } from "./steps/index.js";

/**
 * The next-token loss of a described model on a GPU, every kind of step by kernels of our own, forward and back (`gpuSteps`).
 * @returns undefined for a model of which something has no kernel
 * @param window tokens of every sequence
 * @param router how the experts of mixtures are trained
 * @throws DeviceError when there is no GPU
 */
export async function gpuDecoder(
  spec: ModelSpec,
  parameters: readonly ParameterInfo[],
  window: number,
  router?: RouterOptions,
): Promise<Objective | undefined> {
  const schedule = decoderSchedule(spec, parameters, window, router);
  return schedule && openGpuObjective(parameters, schedule);
}

/** The dispatches of a described model; undefined where something of it has no kernel. */
export function decoderSchedule(
  spec: ModelSpec,
  parameters: readonly ParameterInfo[],
  window: number,
  router?: RouterOptions,
): Schedule | undefined {
  const recording = new Recording(new Layout(parameters), window, { router });
  return scheduleOf(recording, () => {
    recording.write("x", recordEmbedding(spec.embedding, recording));
    for (const { steps } of spec.blocks) recordSteps(steps, recording);
    const logits = recordHead(spec, recording.read("x"), recording);
    return { logits, classes: spec.vocabSize };
  });
}

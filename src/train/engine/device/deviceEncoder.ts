import type { CpuOptions } from "../../../kernels/internal.js";
import {
  type EncoderConfig,
  encoderBlocks,
  encoderEmbedding,
  encoderParameters,
  sinusoids,
} from "../../models/encoderParameters.js";
import type { Objective } from "../../objective.js";
import { openDeviceObjective, type ScheduleDevice } from "./deviceObjective.js";
import { recordClassifier, recordEmbedding } from "./ends.js";
import { Layout } from "./layout.js";
import { Recording } from "./recording.js";
import { type Schedule, scheduleOf } from "./schedule.js";
import { recordSteps } from "./steps/index.js";

/**
 * The loss of an encoder that classifies on a device, by the kernels that train described models.
 * @returns undefined for an encoder whose sizes have no kernel
 * @throws DeviceError when the device is not there
 */
export async function deviceEncoder(
  config: EncoderConfig,
  device: ScheduleDevice = "webgpu",
  options: CpuOptions = {},
): Promise<Objective | undefined> {
  const schedule = encoderSchedule(config);
  return schedule && openDeviceObjective(encoderParameters(config), schedule, device, options);
}

function encoderSchedule(config: EncoderConfig): Schedule | undefined {
  const { length, hiddenSize, classes } = config;
  const recording = new Recording(new Layout(encoderParameters(config)), length, { filledUp: true });
  return scheduleOf(recording, () => {
    const table = recording.table("positions", () => sinusoids(length, hiddenSize));
    recording.write("x", recordEmbedding(encoderEmbedding(config), recording, { table }));
    for (const { steps } of encoderBlocks(config)) recordSteps(steps, recording);
    const names = { weight: "classifier.weight", bias: "classifier.bias" };
    return { logits: recordClassifier(names, recording.read("x"), recording), classes };
  });
}

import { distinctBlocks, type ModelSpec } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import type { CpuOptions } from "../../kernels/internal.js";
import type { TeacherModel } from "../models/distillation.js";
import type { EncoderConfig } from "../models/encoderParameters.js";
import type { Objective } from "../objective.js";
import type { TraceOptions } from "../trace/options.js";
import type { ParameterInfo } from "../values.js";
import { type EngineDevice, startEngine } from "./engine.js";

/** What a language model is trained on and by whom. */
export interface DecoderObjectiveOptions extends TraceOptions {
  /**
   * Runs beside the model where both have kernels (`Objective.hasTeacher`): what it has of a batch then never leaves the device.
   * Elsewhere batches must hold that.
   */
  teacher?: TeacherModel;
  /** Threads of the device "wasm", for models that have kernels; default: the processor's, 1 in a worker thread of Node.js. */
  threads?: number;
}

/**
 * The next-token loss of a described model on a device: on "wasm" and "webgpu" by kernels of our own where every step of the model
 * has them (`deviceSteps`), everything else, and all on "cpu", by the engine, which is loaded when first needed.
 * @param parameters of `modelParameters`
 * @param window tokens of every sequence
 * @throws DeviceError, UsageError that names what of the description cannot be trained, or for a teacher of another vocabulary
 */
export async function decoderObjective(
  spec: ModelSpec,
  parameters: readonly ParameterInfo[],
  window: number,
  device: EngineDevice = "wasm",
  { teacher, threads, ...options }: DecoderObjectiveOptions = {},
): Promise<Objective> {
  // Kernels leave out what is not learnt in any case.
  const { router, distillation, matching, masked: _masked, shown, ...others } = options;
  if (teacher !== undefined && teacher.spec.vocabSize !== spec.vocabSize)
    throw new UsageError(`the teacher has ${teacher.spec.vocabSize} tokens, the student ${spec.vocabSize}`);
  // The kernels write each gradient once: parts of factors, and weights that several layers have, are the engine's.
  const plain =
    Object.values(others).every((option) => option === undefined) &&
    parameters.every(({ part }) => part === undefined) &&
    distinctBlocks(spec).length === spec.blocks.length;
  if (device !== "cpu" && plain) {
    const { deviceDecoder } = await import("./device/deviceDecoder.js");
    const kernels = { router, distillation, matching, shown, teacher, threads };
    const objective = await deviceDecoder(spec, parameters, window, device, kernels);
    if (objective !== undefined) return objective;
  }
  await startEngine(device);
  const [{ tracedObjective }, { traceModel }] = await Promise.all([
    import("./tracedObjective.js"),
    import("../trace/trace.js"),
  ]);
  return tracedObjective(traceModel(spec, parameters, window, options));
}

/**
 * The loss of an encoder that classifies on a device; by kernels of our own on "wasm" and "webgpu".
 * @throws DeviceError
 */
export async function encoderObjective(
  config: EncoderConfig,
  device: EngineDevice = "wasm",
  options: CpuOptions = {},
): Promise<Objective> {
  // The kernels know no clusters.
  if (device !== "cpu" && config.clusters === undefined) {
    const { deviceEncoder } = await import("./device/deviceEncoder.js");
    const objective = await deviceEncoder(config, device, options);
    if (objective !== undefined) return objective;
  }
  await startEngine(device);
  const [{ tracedObjective }, { encoder }] = await Promise.all([
    import("./tracedObjective.js"),
    import("../models/encoder.js"),
  ]);
  return tracedObjective(encoder(config));
}

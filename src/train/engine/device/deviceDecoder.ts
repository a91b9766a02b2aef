import { type BlockSpec, findStep, type ModelSpec } from "../../../arch/index.js";
import type { CpuOptions } from "../../../kernels/internal.js";
import { type Distillation, type TeacherModel, teacherName } from "../../models/distillation.js";
import {
  type FeatureKind,
  featureName,
  type Matching,
  projectionsOf,
  type Shown,
  shownFor,
} from "../../models/matchingOptions.js";
import type { RouterOptions } from "../../models/routerOptions.js";
import type { Objective } from "../../objective.js";
import type { ParameterInfo } from "../../values.js";
import { openDeviceObjective, type ScheduleDevice } from "./deviceObjective.js";
import { recordEmbedding, recordHead } from "./ends.js";
import { Layout } from "./layout.js";
import { recordMatching } from "./matching.js";
import { NoKernel } from "./noKernel.js";
import { Recording } from "./recording.js";
import type { View } from "./rooms.js";
import { type Schedule, scheduleOf, type TaughtLoss } from "./schedule.js";
import { recordSteps } from "./steps/index.js";

/** How a described model is trained by kernels. */
export interface DecoderOptions {
  /** How the experts of mixtures are trained. */
  router?: RouterOptions;
  /** What is learnt from a teacher's predictions, and from what its blocks have. */
  distillation?: Distillation;
  matching?: Matching;
  /** What the model shows of itself to one that learns from it. */
  shown?: Shown;
  /** Nothing is learnt. */
  forwardOnly?: boolean;
}

/**
 * The next-token loss of a described model on a device, every kind of step by kernels of our own, forward and back (`deviceSteps`).
 * @returns undefined for a model of which something has no kernel
 * @param window tokens of every sequence
 * @param options.teacher runs on the same device, as far as it has kernels (`hasTeacher`)
 * @throws DeviceError when the device is not there
 */
export async function deviceDecoder(
  spec: ModelSpec,
  parameters: readonly ParameterInfo[],
  window: number,
  device: ScheduleDevice,
  { teacher, threads, ...options }: Omit<DecoderOptions, "forwardOnly"> & CpuOptions & { teacher?: TeacherModel } = {},
): Promise<Objective | undefined> {
  const schedule = decoderSchedule(spec, parameters, window, options);
  if (schedule === undefined) return undefined;
  const shown = teacher && teacherSchedule(teacher, window, options.matching);
  return openDeviceObjective(trained(parameters, options.matching), schedule, device, {
    threads,
    teacher: shown && { schedule: shown, weights: teacher.weights },
  });
}

/** With the matrices through which a teacher's blocks are seen. */
const trained = (parameters: readonly ParameterInfo[], matching: Matching | undefined) =>
  matching === undefined ? parameters : [...parameters, ...projectionsOf(matching)];

const teacherSchedule = ({ spec, parameters, router }: TeacherModel, window: number, matching: Matching | undefined) =>
  decoderSchedule(spec, parameters, window, {
    router,
    shown: { logits: true, ...(matching === undefined ? { blocks: [], kinds: [] } : shownFor(matching)) },
    forwardOnly: true,
  });

/** The dispatches of a described model; undefined where something of it has no kernel. */
export function decoderSchedule(
  spec: ModelSpec,
  parameters: readonly ParameterInfo[],
  window: number,
  { router, distillation, matching, shown, forwardOnly }: DecoderOptions = {},
): Schedule | undefined {
  const recording = new Recording(new Layout(trained(parameters, matching)), window, {
    router,
    forwardOnly,
  });
  return scheduleOf(recording, () => {
    const taught = distillation && taughtLoss(distillation);
    if (taught !== undefined) recording.given.set(teacherName, spec.vocabSize);
    recording.write("x", recordEmbedding(spec.embedding, recording));
    const views = new Map<string, View>();
    for (const [number, block] of spec.blocks.entries()) {
      if (block.gates !== undefined) throw new NoKernel("gates in front of layers");
      recordSteps(block.steps, recording);
      const kinds = shown?.blocks.includes(number) ? shown.kinds : [];
      const features = kinds.map((kind) => [featureName(kind, number), featureView(kind, block, recording)] as const);
      for (const [name, view] of features) views.set(name, view);
      for (const pair of matching?.layers ?? []) if (pair[0] === number) recordMatching(matching!, pair, recording);
      recording.endBlock(features.map(([, view]) => view));
    }
    const logits = recordHead(spec, recording.read("x"), recording);
    if (shown?.logits) views.set(teacherName, { ...logits, width: spec.vocabSize });
    return { logits, classes: spec.vocabSize, taught, shown: views };
  });
}

/** What a block has left in its buffers. */
function featureView(kind: FeatureKind, block: BlockSpec, recording: Recording): View {
  const buffer = kind === "stream" ? "x" : findStep(block, "attend")?.[kind];
  if (buffer === undefined) throw new NoKernel("what attention reads in a block without any");
  return recording.read(buffer);
}

function taughtLoss({ share, temperature, loss = "kl" }: Distillation): TaughtLoss {
  if (loss === "minillm") throw new NoKernel("texts that the student writes");
  return { share, temperature, loss };
}

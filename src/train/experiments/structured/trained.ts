import type { JobOptions } from "../../../core/index.js";
import { type Checkpoint, memoryFiles, memorySinks, openCheckpoint } from "../../../io/index.js";
import { jsonBytes } from "../../../io/internal.js";
import { decoderObjective } from "../../engine/open.js";
import { gradientSource } from "../../gradientSource.js";
import { readWeights, writeWeights } from "../../languageModel.js";
import { trainMethods } from "../../methods/index.js";
import { teacherName } from "../../models/distillation.js";
import { cosine } from "../../optimizers/schedule.js";
import { runTraining } from "../../runTraining.js";
import type { State } from "../../state.js";
import { Training } from "../../training.js";
import { cloneValues, type FloatArray, isSparsifiable, type Values } from "../../values.js";
import type { CellOptions } from "../contract.js";
import { trainedOnes } from "./contestants.js";
import { maskedModel, rememberedGradients } from "./maskedModel.js";
import { maskedPoint, type Point } from "./oneShot.js";
import type { StructuredProtocol } from "./protocol.js";
import type { Subject } from "./subject.js";

const saveEvery = 50;

/** Trains one contestant, cuts what it has come to, and measures that at each of its shares. */
export async function runTrained(
  subject: Subject,
  name: string,
  shares: readonly number[],
  seed: number,
  protocol: StructuredProtocol,
  options: CellOptions,
): Promise<Point[]> {
  const { signal, onProgress, device } = options;
  const job = { signal, onProgress };
  const { cut } = trainedOnes[name];
  const weights = await trainSubject(subject, name, shares, seed, protocol, options);
  const source = gradientSource(device);
  const points: Point[] = [];
  await using trained = await inMemory(subject, weights, job);
  for (const share of shares) {
    const stage = cut === "first" ? { method: cut, macs: share } : { method: cut };
    points.push(await maskedPoint(subject, name, share, stage, source, job, trained.checkpoint));
  }
  return points;
}

/** The weights at the end, with zeros where units have gone, or with units in order. */
async function trainSubject(
  subject: Subject,
  name: string,
  shares: readonly number[],
  seed: number,
  { steps: ofOne, warmup, weightDecay, distil }: StructuredProtocol,
  { device, state, signal, onProgress }: CellOptions,
): Promise<Values> {
  const job = { signal, onProgress };
  const contestant = trainedOnes[name];
  const { config, parameters, protocol, checkpoint } = subject;
  const { method } = await trainMethods[contestant.method]();
  const steps = ofOne * (contestant.together?.steps ?? 1);
  const settings = contestant.together?.options(shares) ?? contestant.options(shares[0], subject.tokens);
  const dense = await readWeights(checkpoint, parameters, job);
  const stored = await state.load();
  // What goes on has its weights in its state.
  const masked = contestant.masked && stored?.training === undefined;
  const weights = masked
    ? await fisherWeights(subject, shares[0], { device, state, ...job }, stored)
    : cloneValues(dense);
  const linear = new Set(parameters.filter(isSparsifiable).map((info) => info.name));
  const rate = cosine({ peak: protocol.rate, final: protocol.rate / 10, warmup, steps });
  using objective = await decoderObjective(config.spec, parameters, protocol.window, device, {
    ...subject.trace,
    distillation: { share: distil, temperature: 1 },
  });
  const training = new Training({
    objective,
    weights,
    optimizer: { rate, beta2: 0.95, weightDecay, decays: (parameter) => linear.has(parameter), clip: 1 },
    steps,
    seed,
    method: (context) => method.start(context, method.options.parse(settings)),
  });
  if (stored?.training !== undefined) training.restore(stored.training as State);
  const batchOf = await subject.batches(seed);
  await runTraining({
    ...{ training, steps, rate, saveEvery, ...job },
    save: () => state.save(training.step + 1, { training: training.state }),
    async batch(step) {
      const batch = batchOf(step);
      const values = await objective.predict(dense, batch);
      const rows = batch.label.shape[0];
      return { ...batch, [teacherName]: { shape: [rows, values.length / rows], values } };
    },
  });
  return training.finish();
}

/** The weights that Fisher's masks leave, as many as before. */
async function fisherWeights(
  subject: Subject,
  macs: number,
  { device, state, ...job }: Pick<CellOptions, "device" | "state"> & JobOptions,
  stored: State | undefined,
): Promise<Map<string, FloatArray>> {
  const source = rememberedGradients(gradientSource(device), stored?.gradients as State | undefined, (gradients) =>
    state.save(1, { gradients }),
  );
  const stage = { method: "fisher", macs, shrink: false };
  await using masked = await maskedModel(subject, subject.checkpoint, stage, source, job);
  return await readWeights(masked.checkpoint, subject.parameters, job);
}

/** Weights as a checkpoint of the subject's shape. */
async function inMemory(
  { checkpoint, parameters }: Subject,
  weights: Values,
  job: JobOptions,
): Promise<{ checkpoint: Checkpoint } & AsyncDisposable> {
  const files = new Map<string, Uint8Array>([["config.json", jsonBytes(checkpoint.config)]]);
  await writeWeights(memorySinks(files), parameters, weights, () => "F32", job);
  const trained = await openCheckpoint(memoryFiles("trained", files));
  return { checkpoint: trained, [Symbol.asyncDispose]: () => trained.close() };
}

import { readModelSpec } from "../../arch/index.js";
import { breathe, Stage } from "../../core/index.js";
import { RecordWindows } from "../data/records.js";
import { decoderObjective } from "../engine/open.js";
import { method as dense } from "../methods/dense.js";
import { initialProjections, type Matching, matchingOf, matchingSchema, shownFor } from "../models/matchingOptions.js";
import { miniLlmSchema } from "../models/miniLlmOptions.js";
import { initialWeights, modelParameters } from "../models/parameters.js";
import type { Batch, Objective } from "../objective.js";
import { cosine } from "../optimizers/schedule.js";
import { type Predict, writeTexts } from "../rollouts.js";
import { randomFor } from "../seeds.js";
import { Training } from "../training.js";
import type { FloatArray } from "../values.js";
import type { Cell, CellOptions, CellResult } from "./contract.js";
import { students } from "./distillationContestants.js";
import type { ModelSize, StudentProtocol } from "./distillationProtocol.js";
import {
  drawReports,
  drawText,
  judge,
  type Report,
  responseLength,
  responseOf,
  vocabulary,
  window,
  windowsFor,
  wordsBefore,
} from "./distillationTask.js";
import { accumulatedError, writeResponses } from "./distillationWriting.js";

export interface StudentResult extends CellResult {
  /** Tokens of the windows that steps were made on. */
  tokens: number;
  /** Of the texts of the task for reports that are new, nats a token of a response. */
  loss: number;
  /** Means over the reports, of texts drawn from the model and of its likeliest tokens. */
  sampled: Judged;
  greedy: Judged;
  /** Error added up over the first 1, 2 … tokens, behind texts of the model's own and of the teacher's; null for the teacher. */
  error: { own: number[]; oracle: number[] } | null;
}

interface Judged {
  rougeL: number;
  /** Share of texts without any mistake. */
  right: number;
}

const modelOf = ({ layers, hiddenSize, intermediateSize, heads }: ModelSize) => {
  const spec = readModelSpec(
    {
      model_type: "llama",
      vocab_size: vocabulary.length,
      hidden_size: hiddenSize,
      intermediate_size: intermediateSize,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      num_key_value_heads: heads,
      max_position_embeddings: window,
      rms_norm_eps: 1e-5,
      rope_theta: 10_000,
      tie_word_embeddings: true,
    },
    "model of reports",
  );
  return { spec, parameters: modelParameters(spec) };
};

interface Trained extends Disposable {
  objective: Objective;
  weights: ReadonlyMap<string, FloatArray>;
  predict: Predict;
}

/** One cell: the teacher is trained, then it teaches a student, unless it is itself the one to be judged. */
export async function teachStudent(
  { seed, settings }: Cell,
  protocol: StudentProtocol,
  { device, signal, onProgress }: CellOptions,
): Promise<StudentResult> {
  const { batchSize, tests, reports: count } = protocol;
  const contestant = students[settings.name as string];
  const matching = contestant?.match && matchedBy(protocol, contestant.match);
  const job = { device, signal, onProgress };
  const textsFor = (purpose: string, step: number, size: number) => {
    const random = randomFor(seed, purpose, step);
    const reports = drawReports(random, size);
    return { reports, responses: reports.map((report) => responseOf(drawText(report, random))) };
  };
  const windowsOf = (reports: readonly Report[], responses: readonly ArrayLike<number>[]) =>
    new RecordWindows(windowsFor(reports, responses), batchSize, seed);
  using teacher = await train({
    ...{ protocol: protocol.teacher, seed, purpose: "teacher", options: { shown: shownTo(matching) }, ...job },
    batch: async (step) => {
      const { reports, responses } = textsFor("lessons", step, batchSize);
      return windowsOf(reports, responses).batch(0);
    },
  });
  const test = textsFor("tests", 0, tests);
  if (contestant === undefined) return { ...(await judged(teacher)).result, error: null };

  const { distillation, responses: writer, afterSft } = contestant;
  const { reports, responses } = textsFor("texts", 0, count);
  const random = writer === "sampled" ? randomFor(seed, "written") : undefined;
  const windows = windowsOf(
    reports,
    writer === undefined ? responses : await writeResponses(teacher.predict, reports, batchSize, random, signal),
  );
  const { steps } = protocol.student;
  const miniLlm =
    distillation?.loss === "minillm"
      ? miniLlmSchema.parse({ length: responseLength, ...distillation.miniLlm })
      : undefined;
  const looksAt = matching !== undefined || (distillation !== undefined && miniLlm === undefined);
  using student = await train({
    ...{ protocol: protocol.student, seed, purpose: "student", matching, ...job },
    options: { matching, distillation: distillation && { temperature: 1, ...distillation, miniLlm } },
    async batch(step, own) {
      const batch = windows.batch(step);
      if (afterSft && step < steps / 2) return batch;
      if (looksAt) return { ...batch, ...(await teacher.objective.show!(teacher.weights, batch)) };
      if (miniLlm === undefined) return batch;
      const writers = { student: own, teacher: teacher.predict, vocabSize: vocabulary.length, window };
      return writeTexts(batch, writers, miniLlm, randomFor(seed, "rollouts", step));
    },
  });
  const oracle = await writeResponses(teacher.predict, test.reports, batchSize, randomFor(seed, "oracle"), signal);
  const { own, result } = await judged(student);
  const errorBehind = (texts: readonly Int32Array[]) =>
    accumulatedError(student.predict, teacher.predict, test.reports, texts, batchSize, signal);
  return { ...result, error: { own: await errorBehind(own), oracle: await errorBehind(oracle) } };

  async function judged({ objective, weights, predict }: Trained) {
    const losses: number[] = [];
    for (const batch of windowsOf(test.reports, test.responses).inOrder(tests)) {
      await breathe(signal);
      losses.push(await objective.loss(weights, batch));
    }
    const own = await writeResponses(predict, test.reports, batchSize, randomFor(seed, "judged"), signal);
    const likeliest = await writeResponses(predict, test.reports, batchSize, undefined, signal);
    const mean = (texts: readonly Int32Array[]): Judged => {
      const all = texts.map((text, i) => judge(test.reports[i], wordsBefore(text)));
      const of = (value: (one: (typeof all)[number]) => number) =>
        all.reduce((sum, one) => sum + value(one), 0) / all.length;
      return { rougeL: of(({ rougeL }) => rougeL), right: of(({ right }) => Number(right)) };
    };
    const result = {
      tokens: (contestant === undefined ? protocol.teacher : protocol.student).steps * batchSize * window,
      loss: losses.reduce((sum, loss) => sum + loss, 0) / losses.length,
      sampled: mean(own),
      greedy: mean(likeliest),
    };
    return { own, result };
  }
}

/** A teacher shows its logits, and its blocks where they are matched. */
const shownTo = (matching: Matching | undefined) => ({
  ...{ logits: true, blocks: [], kinds: [] },
  ...(matching && shownFor(matching)),
});

const matchedBy = ({ student, teacher }: StudentProtocol, match: object) =>
  matchingOf(matchingSchema.parse(match), modelOf(student).spec, modelOf(teacher).spec);

interface TrainingTask extends Pick<CellOptions, "device" | "signal" | "onProgress"> {
  protocol: StudentProtocol["student"];
  seed: number;
  /** Tells the first weights of the two models apart. */
  purpose: string;
  options: Parameters<typeof decoderObjective>[4];
  matching?: Matching;
  /** @param own what the model predicts as it stands */
  batch(step: number, own: Predict): Promise<Batch>;
}

async function train({ protocol, seed, purpose, options, matching, batch, ...job }: TrainingTask): Promise<Trained> {
  const { steps, rate } = protocol;
  const { device, signal, onProgress } = job;
  const { spec, parameters } = modelOf(protocol);
  const objective = await decoderObjective(spec, parameters, window, device, { ...options, masked: true });
  const weights = initialWeights(parameters, randomFor(seed, purpose), 0.05);
  for (const [name, values] of matching === undefined ? [] : initialProjections(matching, seed))
    weights.set(name, values);
  const training = new Training({
    objective,
    weights,
    optimizer: {
      rate: cosine({ peak: rate, final: rate / 20, warmup: Math.min(50, steps / 4), steps }),
      beta2: 0.95,
      clip: 1,
    },
    steps,
    seed,
    method: (context) => dense.start(context, {}),
  });
  const stage = new Stage(`train the ${purpose}`, steps, "steps", onProgress);
  const predict: Predict = (batch) => objective.predict(weights, batch);
  for (let step = 0; step < steps; step++) {
    await breathe(signal);
    const { loss } = await training.advance(await batch(step, predict));
    stage.advance(1, `loss ${loss.toFixed(3)}`);
  }
  return { objective, weights, predict, [Symbol.dispose]: () => objective[Symbol.dispose]() };
}

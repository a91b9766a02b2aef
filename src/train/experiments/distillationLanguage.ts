import { readModelSpec } from "../../arch/index.js";
import { median } from "../../core/index.js";
import { type Checkpoint, openCheckpoint } from "../../io/index.js";
import { describeDecoder } from "../../model/index.js";
import { loadTokenizer, tokenizeText } from "../../text/index.js";
import { TokenWindows, tokenizeDocuments } from "../data/tokens.js";
import { decoderObjective } from "../engine/open.js";
import { meanLoss, readWeights } from "../languageModel.js";
import { method as dense } from "../methods/dense.js";
import { initialProjections, matchingOf, matchingSchema, shownFor } from "../models/matchingOptions.js";
import { initialWeights, modelParameters } from "../models/parameters.js";
import type { Objective } from "../objective.js";
import { cosine } from "../optimizers/schedule.js";
import { runTraining } from "../runTraining.js";
import { randomFor } from "../seeds.js";
import { Training } from "../training.js";
import { isSparsifiable, type Values } from "../values.js";
import type { Cell, CellOptions, CellResult } from "./contract.js";
import { languageModels } from "./distillationContestants.js";
import type { LanguageProtocol } from "./distillationProtocol.js";

export const languageTexts = { training: "train-books.txt.xz", evaluation: "books-eval.txt" };

export interface LanguageResult extends CellResult {
  /** Trained on. */
  tokens: number;
  perplexity: number;
  /** Median over the steps of this process; null for the teacher. */
  tokensPerSecond: number | null;
}

/** One cell: a small Llama learns a text from random weights, beside a language model that knows it; or that model is judged. */
export async function teachLanguageModel(
  cell: Cell,
  protocol: LanguageProtocol,
  options: CellOptions,
): Promise<LanguageResult> {
  const checkpoint = await openCheckpoint(await options.openModel());
  try {
    return await teachBy(checkpoint, cell, protocol, options);
  } finally {
    await checkpoint.close();
  }
}

async function teachBy(
  checkpoint: Checkpoint,
  { seed, settings }: Cell,
  protocol: LanguageProtocol,
  { device, readText, signal, onProgress, state }: CellOptions,
): Promise<LanguageResult> {
  const job = { signal, onProgress };
  const { window, batchSize, steps, rate, testWindows } = protocol;
  const { config } = await describeDecoder(checkpoint);
  const tokenizer = await loadTokenizer(checkpoint.files);
  const windowsOf = (tokens: Uint32Array) => new TokenWindows(tokens, window, batchSize, seed);
  const evaluation = windowsOf((await tokenizeText(tokenizer, await readText(languageTexts.evaluation))).tokens);
  const perplexity = async (objective: Objective, weights: Values) =>
    Math.exp(await meanLoss(objective, weights, evaluation, testWindows, job));
  const known = modelParameters(config.spec, checkpoint.tensors);
  const knowledge = await readWeights(checkpoint, known, job);
  const contestant = languageModels[settings.name as string];
  if (contestant === undefined) {
    using objective = await decoderObjective(config.spec, known, window, device);
    return { tokens: 0, perplexity: await perplexity(objective, knowledge), tokensPerSecond: null };
  }

  const spec = readModelSpec({ ...studentFields(protocol), vocab_size: config.vocabSize }, "the student");
  const parameters = modelParameters(spec);
  const { distillation, match } = contestant;
  const matching = match && matchingOf(matchingSchema.parse(match), spec, config.spec);
  const shown = {
    ...{ blocks: [], kinds: [] },
    ...(matching && shownFor(matching)),
    logits: distillation !== undefined,
  };
  const isTaught = distillation !== undefined || matching !== undefined;
  using objective = await decoderObjective(spec, parameters, window, device, {
    matching,
    teacher: isTaught ? { spec: config.spec, parameters: known, weights: knowledge } : undefined,
    distillation: distillation && { share: distillation.share, temperature: 1, loss: distillation.loss },
  });
  using teacher =
    isTaught && !objective.hasTeacher
      ? await decoderObjective(config.spec, known, window, device, { shown })
      : undefined;
  const weights = initialWeights(parameters, randomFor(seed, "weights"));
  for (const [name, values] of matching === undefined ? [] : initialProjections(matching, seed))
    weights.set(name, values);
  const linear = new Set(parameters.filter(isSparsifiable).map(({ name }) => name));
  const schedule = cosine({ peak: rate, final: rate / 10, warmup: Math.min(50, steps / 4), steps });
  const training = new Training({
    objective,
    weights,
    optimizer: { rate: schedule, beta2: 0.95, weightDecay: 0.1, decays: (name) => linear.has(name), clip: 1 },
    steps,
    seed,
    method: (context) => dense.start(context, {}),
    onDevice: true,
  });
  const maxTokens = steps * batchSize * window + 1;
  const windows = windowsOf(
    await tokenizeDocuments(tokenizer, await readText(languageTexts.training), { ...job, maxTokens }),
  );
  const stored = await state.load();
  if (stored !== undefined) training.restore(stored);
  const stepMs: number[] = [];
  await runTraining({
    ...{ training, steps, rate: schedule, saveEvery: 200, ...job },
    async batch(step) {
      const batch = windows.batch(step);
      return teacher === undefined ? batch : { ...batch, ...(await teacher.show!(knowledge, batch)) };
    },
    onStep: ({ elapsedMs }) => stepMs.push(elapsedMs),
    async save() {
      await training.synchronise();
      await state.save(training.step, training.state);
    },
  });
  await training.synchronise();
  return {
    tokens: steps * batchSize * window,
    perplexity: await perplexity(objective, weights),
    tokensPerSecond: stepMs.length === 0 ? null : (1000 * batchSize * window) / median(stepMs),
  };
}

/** As the embedded model is built. */
const studentFields = ({ student }: LanguageProtocol) => ({
  model_type: "llama",
  hidden_size: student.hiddenSize,
  intermediate_size: student.intermediateSize,
  num_hidden_layers: student.layers,
  num_attention_heads: student.heads,
  num_key_value_heads: student.kvHeads,
  max_position_embeddings: 1024,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  tie_word_embeddings: true,
});

import { type Checkpoint, openCheckpoint } from "../../io/index.js";
import { describeDecoder } from "../../model/index.js";
import { loadTokenizer, tokenizeText } from "../../text/index.js";
import { TokenWindows, tokenizeDocuments } from "../data/tokens.js";
import { decoderObjective } from "../engine/open.js";
import { meanLoss, readWeights } from "../languageModel.js";
import { modelParameters } from "../models/parameters.js";
import { isSparsifiable, type ParameterInfo, type Values } from "../values.js";
import type { Cell, CellOptions, Experiment, Scale } from "./contract.js";
import { prunedWeights } from "./prunedModel.js";
import { contestants } from "./recoveryContestants.js";
import { protocols, type RecoveryProtocol } from "./recoveryProtocol.js";
import { type PatternCheck, type RecoveryResult, reportRecovery } from "./recoveryReport.js";
import { type RecoveryRun, trainToRecover } from "./recoveryTraining.js";

const textNames = { training: "train-books.txt.xz", calibration: "calib.txt", evaluation: "books-eval.txt" };

export const experiment: Experiment = {
  id: "recovery",
  title: "2:4 recovery of a language model",
  description:
    "A trained language model is brought to two non-zeros in every four weights: by SparseGPT in one shot, and by training on the same number of tokens with SparseGPT's mask kept, by SR-STE, by AST and by CAST. Beside them the dense model, trained on.",
  seeds: { smoke: 1, laptop: 1, gpu: 1 },
  texts: Object.values(textNames),
  usesModel: true,
  plan: (scale, seeds, model) =>
    Array.from({ length: seeds }, (_, seed) =>
      Object.entries(contestants).map(([name, { training }]) => ({
        key: `${name}-seed${seed}`,
        seed,
        settings: { name, model, scale, ...budgetOf(protocols[scale]), training: JSON.stringify(training ?? null) },
      })),
    ).flat(),
  run: recover,
  report: async (cells, scale) => reportRecovery(cells, protocols[scale]),
};

/** What the tokens of a run are counted from; a cell of another length is another cell. */
const budgetOf = ({ steps, batchSize, window, rate }: RecoveryProtocol) => ({ steps, batchSize, window, rate });

async function recover(cell: Cell, options: CellOptions): Promise<RecoveryResult> {
  const files = await options.openModel();
  const checkpoint = await openCheckpoint(files);
  try {
    return await recoverCheckpoint(cell, options, checkpoint);
  } finally {
    await checkpoint.close();
  }
}

async function recoverCheckpoint(
  { seed, settings }: Cell,
  { device, readText, signal, onProgress, state }: CellOptions,
  checkpoint: Checkpoint,
): Promise<RecoveryResult> {
  const job = { signal, onProgress };
  const protocol = protocols[settings.scale as Scale];
  const { pruned, training } = contestants[settings.name as string];
  const { window, batchSize, steps, testWindows } = protocol;
  const { config } = await describeDecoder(checkpoint);
  const tokenizer = await loadTokenizer(checkpoint.files);
  const parameters = modelParameters(config.spec, checkpoint.tensors);
  const windowsOf = (tokens: Uint32Array) => new TokenWindows(tokens, window, batchSize, seed);

  const weights = pruned
    ? await prunedWeights(
        checkpoint,
        parameters,
        {
          method: "sparsegpt",
          calibration: await tokenizeText(tokenizer, await readText(textNames.calibration)),
          ...protocol.calibration,
        },
        job,
      )
    : await readWeights(checkpoint, parameters, job);
  const evaluation = windowsOf((await tokenizeText(tokenizer, await readText(textNames.evaluation))).tokens);
  using objective = await decoderObjective(config.spec, parameters, window, device);
  const perplexity = async (values: Values) =>
    Math.exp(await meanLoss(objective, values, evaluation, testWindows, job));

  let run: RecoveryRun = { curve: [], losses: [], drift: null, tokensPerSecond: null };
  if (training !== undefined) {
    const text = await readText(textNames.training);
    const windows = windowsOf(await tokenizeDocuments(tokenizer, text, { ...job, maxTokens: protocol.maxTokens }));
    run = await trainToRecover({ objective, weights, windows, perplexity, protocol, training, seed, state, ...job });
  }
  return {
    tokens: training === undefined ? 0 : steps * batchSize * window,
    perplexity: await perplexity(weights),
    pattern: checkPattern(parameters, weights),
    ...run,
  };
}

/** Counts, in the weights themselves, what 2:4 promises of the linear maps. */
function checkPattern(parameters: readonly ParameterInfo[], weights: Values): PatternCheck {
  const check = { zeros: 0, weights: 0, groups: 0, broken: 0 };
  for (const { name } of parameters.filter(isSparsifiable)) {
    const values = weights.get(name)!;
    // Rows are multiples of four, so no group crosses the end of one.
    for (let i = 0; i < values.length; i += 4) {
      let kept = 0;
      for (let j = i; j < i + 4; j++) if (values[j] !== 0) kept++;
      check.zeros += 4 - kept;
      check.groups++;
      if (kept > 2) check.broken++;
    }
    check.weights += values.length;
  }
  return check;
}

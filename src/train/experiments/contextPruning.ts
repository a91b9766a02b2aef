import { spread } from "../../core/index.js";
import { openCheckpoint } from "../../io/index.js";
import { describeDecoder } from "../../model/index.js";
import { lineChart } from "../../report/internal.js";
import { loadTokenizer, tokenizeText } from "../../text/index.js";
import { TokenWindows, tokenizeDocuments } from "../data/tokens.js";
import { decoderObjective } from "../engine/open.js";
import { meanLoss, readWeights } from "../languageModel.js";
import { contextLeftName } from "../models/contextNames.js";
import {
  contextControl,
  contextPruningSettings,
  initialInteractions,
  prunableConfig,
} from "../models/contextPruning.js";
import { extendedParameters } from "../models/parameters.js";
import type { Cell, CellOptions, CellResult, Experiment, FinishedCell, Scale } from "./contract.js";
import { trainOn } from "./trainOn.js";

interface Protocol {
  steps: number;
  batchSize: number;
  window: number;
  rate: number;
  rank: number;
  /** Of the share of the context that is left, in the loss; each is a cell. */
  weights: readonly number[];
  /** Windows that perplexity, and what is left of contexts, are measured on. */
  testWindows: number;
  maxTokens: number;
}

const protocols: Readonly<Record<Scale, Protocol>> = {
  smoke: { steps: 3, batchSize: 1, window: 16, rate: 3e-4, rank: 4, weights: [0.3], testWindows: 2, maxTokens: 300 },
  laptop: {
    ...{ steps: 400, batchSize: 2, window: 128, rate: 3e-4, rank: 16 },
    ...{ weights: [0.03, 0.3, 3], testWindows: 64, maxTokens: 110_000 },
  },
  gpu: {
    ...{ steps: 5000, batchSize: 16, window: 512, rate: 3e-4, rank: 64 },
    ...{ weights: [0.03, 0.1, 0.3, 1, 3], testWindows: 256, maxTokens: 1e9 },
  },
};

const textNames = { training: "calib.txt", evaluation: "books-eval.txt" };
/** The weight of a cell that is trained on without pruning. */
const whole = "none";
const saveEvery = 100;

interface ContextResult extends CellResult {
  /** With hard masks, as the runtime has them. */
  perplexity: number;
  /** Mean share of earlier positions that no longer are seen; keys and values that decoding does not read. */
  dropped: number;
}

export const experiment: Experiment = {
  id: "context-pruning",
  title: "Perplexity against the share of the context that is dropped",
  description:
    "A trained language model is trained on with layers that learn which earlier tokens they no longer need (dynamic context pruning), at several weights of what is left in the loss, and without: perplexity with hard masks, and the share of keys and values that is no longer held.",
  seeds: { smoke: 1, laptop: 1, gpu: 3 },
  texts: Object.values(textNames),
  usesModel: true,
  plan: (scale, seeds, model) => {
    const { weights, ...protocol } = protocols[scale];
    return Array.from({ length: seeds }, (_, seed) =>
      [whole, ...weights].map((weight, i) => ({
        key: `weight${i}-seed${seed}`,
        seed,
        settings: { weight, model, scale, ...protocol },
      })),
    ).flat();
  },
  run: train,
  report: async (cells, scale) => report(cells, protocols[scale]),
};

async function train({ seed, settings }: Cell, options: CellOptions): Promise<ContextResult> {
  const { readText, device, signal, onProgress, state } = options;
  const job = { signal, onProgress };
  const protocol = protocols[settings.scale as Scale];
  const { steps, batchSize, window, rank, testWindows, maxTokens } = protocol;
  const pruning =
    settings.weight === whole ? undefined : contextPruningSettings({ rank, weight: settings.weight as number });
  const checkpoint = await openCheckpoint(await options.openModel());
  try {
    const described = (await describeDecoder(checkpoint)).config;
    const config = pruning === undefined ? described : prunableConfig(described, pruning);
    const { parameters, had, added } = extendedParameters(described.spec, config.spec, checkpoint.tensors);
    const begun = pruning && initialInteractions(added, pruning, seed);
    const weights = new Map([...(await readWeights(checkpoint, had, job)), ...(begun ?? [])]);
    const tokenizer = await loadTokenizer(checkpoint.files);
    const windowsOf = (tokens: Uint32Array) => new TokenWindows(tokens, window, batchSize, seed);
    const text = await readText(textNames.training);
    const windows = windowsOf(await tokenizeDocuments(tokenizer, text, { ...job, maxTokens }));
    const evaluation = windowsOf((await tokenizeText(tokenizer, await readText(textNames.evaluation))).tokens);
    using objective = await decoderObjective(config.spec, parameters, window, device);
    const control = pruning && contextControl(pruning, steps);
    await trainOn({ objective, weights, windows, protocol, control, seed, state, saveEvery, ...job });
    const perplexity = Math.exp(await meanLoss(objective, weights, evaluation, testWindows, { ...job, control }));
    if (pruning === undefined) return { perplexity, dropped: 0 };
    const left: number[] = [];
    for (const batch of evaluation.inOrder(testWindows)) {
      signal?.throwIfAborted();
      // Without the arrays of the control masks are hard.
      left.push((await objective.lossAndGradients(weights, batch)).measured.get(contextLeftName)![0]);
    }
    return { perplexity, dropped: 1 - left.reduce((sum, share) => sum + share, 0) / left.length };
  } finally {
    await checkpoint.close();
  }
}

async function report(cells: readonly FinishedCell[], protocol: Protocol) {
  const byWeight = [whole, ...protocol.weights].map((weight) => {
    const own = cells.filter(({ settings }) => settings.weight === weight).map(({ result }) => result as ContextResult);
    return { weight, perplexity: own.map((one) => one.perplexity), dropped: own.map((one) => 100 * one.dropped) };
  });
  const found = byWeight.filter(({ perplexity }) => perplexity.length > 0);
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const points = found
    .map(({ perplexity, dropped }) => [mean(dropped), mean(perplexity)] as const)
    .sort(([a], [b]) => a - b);
  return {
    protocol: Object.entries(protocol).map(([name, value]) => [name, String(value)] as const),
    tables: [
      {
        title: "By the weight of what is left",
        columns: ["weight", "perplexity", "dropped, %"],
        rows: found.map(({ weight, perplexity, dropped }) => [
          String(weight),
          spread(perplexity, 2),
          spread(dropped, 1),
        ]),
      },
    ],
    figures: [
      {
        name: "context-pruning",
        title: "Perplexity against the share of the context that is dropped",
        picture: lineChart([{ name: "trained on the same tokens", points }], {
          title: "Perplexity against the share of the context that is dropped",
          xLabel: "keys and values that are gone, %",
          yLabel: "perplexity",
        }),
      },
    ],
    notes: [
      "What is dropped is the mean over layers and over all pairs of a token and an earlier one within a window; windows are short, and more of a longer text would go.",
      "The first row is the same model trained on the same tokens without pruning.",
    ],
  };
}

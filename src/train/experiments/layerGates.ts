import { parseRecipe } from "../../compress/index.js";
import { type JobOptions, spread } from "../../core/index.js";
import { evaluateQuality } from "../../eval/index.js";
import {
  artifactVersion,
  type Checkpoint,
  memoryFiles,
  memorySinks,
  openCheckpoint,
  serializeArtifact,
} from "../../io/index.js";
import { jsonBytes } from "../../io/internal.js";
import { openBackend } from "../../kernels/index.js";
import { describeDecoder, loadModel } from "../../model/index.js";
import { memoryWorkspace, planCompression, runCompression } from "../../pipeline/index.js";
import { lineChart } from "../../report/internal.js";
import { parseExits } from "../../runtime/index.js";
import { loadTokenizer, type TokenizedText, tokenizeText } from "../../text/index.js";
import { TokenWindows, tokenizeDocuments } from "../data/tokens.js";
import { decoderObjective } from "../engine/open.js";
import { readWeights, writeWeights } from "../languageModel.js";
import { gateControl, gatedConfig, initialGates, parseLayerGates } from "../models/layerGates.js";
import { extendedParameters } from "../models/parameters.js";
import type { Cell, CellOptions, CellResult, Experiment, FinishedCell, Scale } from "./contract.js";
import { trainOn } from "./trainOn.js";

/** What is trained on: "dense", "drop:N", or gates as `parseLayerGates` reads them. */
type Way = string;

interface Protocol {
  steps: number;
  batchSize: number;
  window: number;
  rate: number;
  ways: readonly Way[];
  /** Probabilities at which tokens of the dense model leave early. */
  exits: readonly number[];
  /** Windows whose blocks are judged by their influence. */
  calibrationWindows: number;
  testWindows: number;
  maxTokens: number;
}

const ways = [
  "dense",
  ...["hard:share=0.83", "hard:share=0.67", "hard:share=0.5"],
  ...["hard:share=0.67,units=sublayers", "topk:share=0.67"],
  ...["drop:1", "drop:2", "drop:3"],
];
const exits = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9];

const protocols: Readonly<Record<Scale, Protocol>> = {
  smoke: {
    ...{ steps: 3, batchSize: 1, window: 16, rate: 3e-4, ways: ["dense", "hard:share=0.5", "drop:1"] },
    ...{ exits: [0.1], calibrationWindows: 1, testWindows: 2, maxTokens: 300 },
  },
  laptop: {
    ...{ steps: 240, batchSize: 2, window: 128, rate: 3e-4, ways },
    ...{ exits, calibrationWindows: 16, testWindows: 64, maxTokens: 110_000 },
  },
  gpu: {
    ...{ steps: 5000, batchSize: 16, window: 512, rate: 3e-4, ways },
    ...{ exits, calibrationWindows: 64, testWindows: 256, maxTokens: 1e9 },
  },
};

const textNames = { training: "calib.txt", evaluation: "books-eval.txt" };
const saveEvery = 80;

/** Share of the weights of the blocks that a token met, and how well it was predicted. */
interface Point {
  share: number;
  perplexity: number;
}

interface GatesResult extends CellResult, Point {
  /** Of the dense model, whose tokens leave early. */
  exits: (Point & { least: number })[];
}

export const experiment: Experiment = {
  id: "layer-gates",
  title: "Perplexity against the share of the layers that tokens take",
  description:
    "A trained language model is trained on with routers in front of its layers that let tokens past them (adaptive gating), at several shares, beside the same model with whole blocks dropped by influence (ShortGPT) and trained on as long, and beside early exit from the model trained on as it is: perplexity as the runtime has it, and the share of the blocks' weights that tokens met.",
  seeds: { smoke: 1, laptop: 1, gpu: 3 },
  texts: Object.values(textNames),
  usesModel: true,
  plan: (scale, seeds, model) => {
    const { ways, exits: _, ...protocol } = protocols[scale];
    return Array.from({ length: seeds }, (_, seed) =>
      ways.map((way, i) => ({ key: `way${i}-seed${seed}`, seed, settings: { way, model, scale, ...protocol } })),
    ).flat();
  },
  run: train,
  report: async (cells, scale) => report(cells, protocols[scale]),
};

async function train({ seed, settings }: Cell, options: CellOptions): Promise<GatesResult> {
  const { readText, device, signal, onProgress, state } = options;
  const job = { signal, onProgress };
  const protocol = protocols[settings.scale as Scale];
  const { steps, batchSize, window, maxTokens } = protocol;
  const way = settings.way as Way;
  const source = await openCheckpoint(await options.openModel());
  try {
    const { layers } = (await describeDecoder(source)).config;
    const tokenizer = await loadTokenizer(source.files);
    const text = await readText(textNames.training);
    const windows = new TokenWindows(
      await tokenizeDocuments(tokenizer, text, { ...job, maxTokens }),
      window,
      batchSize,
      seed,
    );
    const count = way.startsWith("drop:") ? Number(way.slice(5)) : 0;
    const calibration = () => tokenizeText(tokenizer, text.slice(0, 20 * maxTokens));
    await using subject = await shallower(source, count, calibration, protocol, job);
    const { checkpoint } = subject;
    const own = (await describeDecoder(checkpoint)).config;
    const gates = way === "dense" || count > 0 ? undefined : parseLayerGates(way);
    const config = gates === undefined ? own : gatedConfig(own, gates);
    const { parameters, had, added } = extendedParameters(own.spec, config.spec, checkpoint.tensors);
    const weights = new Map([
      ...(await readWeights(checkpoint, had, job)),
      ...(gates ? initialGates(added, gates, seed) : []),
    ]);
    using objective = await decoderObjective(config.spec, parameters, window, device);
    const control = gates && gateControl(gates, steps);
    await trainOn({ objective, weights, windows, protocol, control, seed, state, saveEvery, ...job });

    const files = new Map<string, Uint8Array>([["config.json", jsonBytes(checkpoint.config)]]);
    await writeWeights(memorySinks(files), parameters, weights, () => "F32", job);
    if (gates !== undefined)
      files.set("rarefy.json", serializeArtifact({ rarefy: artifactVersion, blocks: [...config.blocks] }));
    const evaluation = await tokenizeText(tokenizer, await readText(textNames.evaluation));
    return await measured(
      files,
      evaluation,
      layers,
      { ...protocol, exits: way === "dense" ? protocol.exits : [] },
      job,
    );
  } finally {
    await source.close();
  }
}

/** The model without some of its blocks, those of least influence. */
async function shallower(
  checkpoint: Checkpoint,
  count: number,
  calibration: () => Promise<TokenizedText>,
  { window, calibrationWindows: windows }: Protocol,
  { signal }: JobOptions,
): Promise<{ checkpoint: Checkpoint } & AsyncDisposable> {
  if (count === 0) return { checkpoint, [Symbol.asyncDispose]: async () => {} };
  const stages = [{ type: "dropLayers", method: "influence", count }];
  const recipe = parseRecipe({ version: 1, calibration: { windows, window }, stages }, "dropped blocks");
  const storage = { store: "dense", dtype: "F32", version: "experiment" } as const;
  const options = { recipe, calibration: await calibration(), ...storage, signal };
  const plan = await planCompression(checkpoint, options);
  const files = new Map<string, Uint8Array>();
  await runCompression(checkpoint, plan, { workspace: memoryWorkspace(files), companions: [] }, options);
  const dropped = await openCheckpoint(memoryFiles("dropped", files));
  return { checkpoint: dropped, [Symbol.asyncDispose]: () => dropped.close() };
}

/** As the runtime has it. @param layers that the model had at first */
async function measured(
  files: Map<string, Uint8Array>,
  text: TokenizedText,
  layers: number,
  { window, testWindows: maxWindows, exits }: Protocol,
  job: JobOptions,
): Promise<GatesResult> {
  const checkpoint = await openCheckpoint(memoryFiles("trained", files));
  try {
    using backend = await openBackend(undefined, { threads: 1 });
    using model = await loadModel(checkpoint, backend, { weights: "f32" });
    const rules = exits.map((least) => parseExits(`top:least=${least},from=1,every=1,fill=propagate`));
    const variants = [{ name: "all", model }, ...rules.map((exits) => ({ name: exits.text, model, exits }))];
    const [all, ...left] = await evaluateQuality(variants, text, { window, maxWindows, ...job });
    return {
      share: ((all.layerShare ?? 1) * model.config.layers) / layers,
      perplexity: all.perplexity,
      exits: left.map(({ meanExitLayer, perplexity }, i) => ({
        least: exits[i],
        share: meanExitLayer! / layers,
        perplexity,
      })),
    };
  } finally {
    await checkpoint.close();
  }
}

const kindOf = (way: Way): string => {
  if (way === "dense") return "as it is";
  if (way.startsWith("drop:")) return "blocks dropped by influence";
  const { name, values } = parseLayerGates(way);
  return `${name} gates in front of ${values.units}`;
};

async function report(cells: readonly FinishedCell[], { ways, exits, ...protocol }: Protocol) {
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const rows = ways.flatMap((way) => {
    const own = cells.filter(({ settings }) => settings.way === way).map(({ result }) => result as GatesResult);
    return own.length === 0 ? [] : [{ way, kind: kindOf(way), points: own as Point[] }];
  });
  const dense = cells.filter(({ settings }) => settings.way === "dense").map(({ result }) => result as GatesResult);
  const leaving =
    dense.length === 0
      ? []
      : exits.map((least, i) => ({
          ...{ way: `top:least=${least},from=1,every=1,fill=propagate`, kind: "early exit" },
          points: dense.map((result): Point => result.exits[i]),
        }));
  const all = [...rows, ...leaving];
  const series = [...new Set(all.map(({ kind }) => kind))].map((name) => ({
    name,
    points: all
      .filter(({ kind }) => kind === name)
      .map(
        ({ points }) =>
          [100 * mean(points.map(({ share }) => share)), mean(points.map((one) => one.perplexity))] as const,
      )
      .sort(([a], [b]) => a - b),
  }));
  return {
    protocol: Object.entries(protocol).map(([name, value]) => [name, String(value)] as const),
    tables: [
      {
        title: "By what lets tokens past layers",
        columns: ["way", "asked for", "weights of the blocks met, %", "perplexity"],
        rows: all.map(({ kind, way, points }) => [
          kind,
          way,
          spread(
            points.map(({ share }) => 100 * share),
            1,
          ),
          spread(
            points.map(({ perplexity }) => perplexity),
            2,
          ),
        ]),
      },
    ],
    figures: [
      {
        name: "layer-gates",
        title: "Perplexity against the share of the layers that tokens take",
        picture: lineChart(series, {
          title: "Perplexity against the share of the layers that tokens take",
          xLabel: "weights of the blocks that a token meets, %",
          yLabel: "perplexity",
        }),
      },
    ],
    notes: [
      "Every row but early exit is trained for the same steps on the same tokens from the same weights; early exit is that of the first row, and looks at the output matrix behind every layer, which is not in the share.",
      "Perplexities are the runtime's, of f32 weights: closed gates are closed, tokens that left are gone.",
    ],
  };
}

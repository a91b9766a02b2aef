import { readModelSpec } from "../../arch/index.js";
import { breathe, spread } from "../../core/index.js";
import { lineChart } from "../../report/internal.js";
import { decoderObjective } from "../engine/open.js";
import { meanLoss } from "../languageModel.js";
import { method as dense } from "../methods/dense.js";
import { controllerControl } from "../models/controllers.js";
import { initialWeights, modelParameters } from "../models/parameters.js";
import { cosine } from "../optimizers/schedule.js";
import { randomFor } from "../seeds.js";
import { Training } from "../training.js";
import { characterWindows } from "./characterModel.js";
import type { Cell, CellOptions, CellResult, Experiment, FinishedCell, Scale } from "./contract.js";

interface Protocol {
  layers: number;
  hiddenSize: number;
  heads: number;
  intermediateSize: number;
  window: number;
  /** Units of which one works, and the rank of what chooses it. */
  block: number;
  rank: number;
  batchSize: number;
  steps: number;
  rate: number;
  testWindows: number;
}

const protocols: Readonly<Record<Scale, Protocol>> = {
  smoke: {
    ...{ layers: 1, hiddenSize: 16, heads: 2, intermediateSize: 32, window: 8, block: 4, rank: 4 },
    ...{ batchSize: 2, steps: 4, rate: 3e-3, testWindows: 4 },
  },
  laptop: {
    ...{ layers: 2, hiddenSize: 64, heads: 4, intermediateSize: 256, window: 64, block: 8, rank: 16 },
    ...{ batchSize: 8, steps: 1000, rate: 3e-3, testWindows: 256 },
  },
  gpu: {
    ...{ layers: 6, hiddenSize: 256, heads: 8, intermediateSize: 1024, window: 256, block: 32, rank: 64 },
    ...{ batchSize: 32, steps: 10_000, rate: 1e-3, testWindows: 1024 },
  },
};

const contestants: Readonly<Record<string, { sparse: boolean; attention: string }>> = {
  dense: { sparse: false, attention: "dense" },
  "one unit of a block": { sparse: true, attention: "dense" },
  "and multiplicative attention": { sparse: true, attention: "multiplicative" },
  "and convolutional attention": { sparse: true, attention: "convolutional" },
};

interface TerraformerResult extends CellResult {
  /** Nats a character on the held-out tenth, controllers hard. */
  testLoss: number;
  parameters: number;
  /** Numbers of the MLP of a block that a token reads at most. */
  mlpNumbers: number;
  /** Means over runs of steps. */
  losses: number[];
}

const textName = "calib.txt";
const smoothing = 10;

const specOf = ({ sparse, attention }: (typeof contestants)[string], protocol: Protocol, vocabulary: number) =>
  readModelSpec(
    {
      model_type: "terraformer",
      vocab_size: vocabulary,
      hidden_size: protocol.hiddenSize,
      intermediate_size: protocol.intermediateSize,
      num_hidden_layers: protocol.layers,
      num_attention_heads: protocol.heads,
      max_position_embeddings: protocol.window,
      attention_layers: attention,
      ...(sparse && { controller_block: protocol.block, controller_rank: protocol.rank }),
    },
    "character model",
  );

export const experiment: Experiment = {
  id: "terraformer",
  title: "Sparse is enough: Terraformer's layers",
  description:
    "Small character models with MLPs of which a controller chooses one unit of every block, and with queries, keys, values and output that are multiplicative or convolutional, beside the dense model: held-out loss, numbers, and how many of them a token reads.",
  seeds: { smoke: 1, laptop: 3, gpu: 3 },
  texts: [textName],
  plan: (scale, seeds) =>
    Array.from({ length: seeds }, (_, seed) =>
      Object.keys(contestants).map((name, i) => ({ key: `layers${i}-seed${seed}`, seed, settings: { scale, name } })),
    ).flat(),
  run: train,
  report: async (cells, scale) => report(cells, protocols[scale]),
};

async function train(cell: Cell, { signal, readText, device }: CellOptions): Promise<TerraformerResult> {
  const { scale, name } = cell.settings as { scale: Scale; name: string };
  const protocol = protocols[scale];
  const { steps, rate, window, batchSize, testWindows } = protocol;
  const { kinds, train: windows, test } = characterWindows(await readText(textName), protocol, cell.seed);
  const spec = specOf(contestants[name], protocol, kinds);
  const parameters = modelParameters(spec);
  using objective = await decoderObjective(spec, parameters, window, device);
  const random = randomFor(cell.seed, "weights");
  const control = controllerControl(spec, batchSize * window, cell.seed);
  const training = new Training({
    objective,
    // Matrices by their inputs.
    weights: new Map(
      parameters.flatMap((parameter) => [
        ...initialWeights([parameter], random, 1 / Math.sqrt(parameter.shape.at(-1)!)),
      ]),
    ),
    optimizer: {
      rate: cosine({ peak: rate, final: rate / 10, warmup: Math.min(50, steps / 4), steps }),
      beta2: 0.95,
      clip: 1,
    },
    steps,
    seed: cell.seed,
    method: (context) => dense.start(context, {}),
    control,
  });
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    await breathe(signal);
    losses.push((await training.advance(windows.batch(step))).loss);
  }
  return {
    testLoss: await meanLoss(objective, training.weights, test, testWindows, { signal, control }),
    parameters: parameters.reduce((sum, { shape }) => sum + shape.reduce((all, size) => all * size, 1), 0),
    mlpNumbers: numbersRead(protocol, contestants[name].sparse),
    losses: Array.from({ length: Math.ceil(steps / smoothing) }, (_, k) => {
      const run = losses.slice(k * smoothing, (k + 1) * smoothing);
      return run.reduce((sum, loss) => sum + loss, 0) / run.length;
    }),
  };
}

/** Of the MLP of a block: all, or the controller and what it chooses at most. */
function numbersRead({ hiddenSize, intermediateSize, block, rank }: Protocol, sparse: boolean): number {
  const all = 2 * hiddenSize * intermediateSize;
  return sparse ? rank * (hiddenSize + intermediateSize) + all / block : all;
}

function report(cells: readonly FinishedCell[], protocol: Protocol) {
  const of = (name: string) =>
    cells.filter(({ settings }) => settings.name === name).map(({ result }) => result as TerraformerResult);
  const names = Object.keys(contestants).filter((name) => of(name).length > 0);
  const { layers, hiddenSize, intermediateSize, heads, window, batchSize, steps, rate, block, rank } = protocol;
  return {
    protocol: [
      [
        "model",
        `${layers} layers, ${hiddenSize} wide, ${heads} heads, ${intermediateSize} units with ReLU, no positions`,
      ],
      ["controller", `one of ${block} units, rank ${rank}; Gumbel noise at temperature 0.1, hard in 30 % of the steps`],
      ["training", `${steps} steps of ${batchSize} × ${window} characters, AdamW at ${rate}, cosine, clip 1`],
      ["evaluation", "the last tenth of the text, controllers hard and without noise"],
    ] as const,
    tables: [
      {
        title: "Held-out loss",
        columns: ["layers", "nats a character", "numbers", "of an MLP read for a token"],
        rows: names.map((name) => {
          const [{ parameters, mlpNumbers }] = of(name);
          const share = mlpNumbers / (2 * hiddenSize * intermediateSize);
          return [
            name,
            spread(
              of(name).map(({ testLoss }) => testLoss),
              4,
            ),
            parameters.toLocaleString("en"),
            `${(100 * share).toFixed(1)} %`,
          ];
        }),
      },
    ],
    figures: [
      {
        name: "loss",
        title: "Loss in training",
        picture: lineChart(
          names.map((name) => ({
            name,
            points: of(name)[0].losses.map((loss, k) => [k * smoothing, loss] as const),
          })),
          { title: "Training loss", names: "below", xLabel: "step", yLabel: "nats a character" },
        ),
      },
    ],
    notes: [
      "Attention has no positions of its own: the causal mask, and with convolutions the last three characters, tell them.",
    ],
  };
}

import { breathe, meanAndDeviation, spread } from "../../core/index.js";
import { lineChart } from "../../report/internal.js";
import { meanLoss } from "../languageModel.js";
import { trainMethods } from "../methods/index.js";
import { cosine } from "../optimizers/schedule.js";
import { Training } from "../training.js";
import { type CharacterModelSize, characterModel } from "./characterModel.js";
import type { Cell, CellOptions, CellResult, Experiment, FinishedCell, Scale } from "./contract.js";

/** Methods beside each other: id and options of the method. */
const contestants = {
  dense: ["dense", {}],
  "prune, then train": ["gradual", { initial: 0, final: 0.5, from: 0.5, until: 0.5 }],
  STE: ["ste", {}],
  "SR-STE λ 2e-4": ["sr-ste", { decay: 2e-4 }],
  "SR-STE λ 1e-2": ["sr-ste", { decay: 1e-2 }],
  "transposable 2:4": ["transposable", { interval: 20, decay: 1e-3 }],
  "S-STE": ["s-ste", {}],
  AST: ["ast", { decay: 0.02, interval: 10 }],
  CAST: ["cast", { decay: 0.05, interval: 10 }],
} as const;
type Contestant = keyof typeof contestants;

/** Steps from one choice of masks to the next; methods without the option choose at every step. */
const intervalOf = (name: string): number => {
  const [, options] = contestants[name as Contestant];
  return "interval" in options ? options.interval : 1;
};

interface Protocol extends CharacterModelSize {
  steps: number;
  rate: number;
}

const protocols: Readonly<Record<Scale, Protocol>> = {
  smoke: { layers: 1, hiddenSize: 16, intermediateSize: 32, heads: 2, window: 16, batchSize: 4, steps: 12, rate: 3e-3 },
  laptop: {
    layers: 2,
    hiddenSize: 64,
    intermediateSize: 160,
    heads: 4,
    window: 64,
    batchSize: 8,
    steps: 1000,
    rate: 3e-3,
  },
  gpu: {
    layers: 6,
    hiddenSize: 256,
    intermediateSize: 704,
    heads: 8,
    window: 256,
    batchSize: 32,
    steps: 10_000,
    rate: 1e-3,
  },
};

const textName = "calib.txt";
const smoothing = 10;

interface FlipResult extends CellResult {
  /** Nats per character on the held-out tenth, after exact zeros were made. */
  testLoss: number;
  sparsity: number;
  /** Means over each tenth step's neighbourhood: training loss, flip rate, drift. */
  losses: number[];
  flipRates: number[];
  drifts: number[];
}

export const experiment: Experiment = {
  id: "flip-rates",
  title: "Mask flips of 2:4 training methods",
  description:
    "A small character language model trained from scratch into 2:4 sparsity by nine methods: how many mask entries change from step to step, how far the mask drifts from the first one, and what loss remains once the zeros are exact.",
  seeds: { smoke: 1, laptop: 3, gpu: 3 },
  texts: [textName],
  plan: (scale, seeds) =>
    Array.from({ length: seeds }, (_, seed) =>
      Object.keys(contestants).map((name, i) => ({
        key: `method${i}-seed${seed}`,
        seed,
        settings: { scale, name },
      })),
    ).flat(),
  run: train,
  report: async (cells, scale) => report(cells, protocols[scale]),
};

async function train(cell: Cell, { signal, readText, device }: CellOptions): Promise<FlipResult> {
  const { scale, name } = cell.settings as { scale: Scale; name: Contestant };
  const protocol = protocols[scale];
  const { steps, rate } = protocol;
  const model = await characterModel(await readText(textName), protocol, cell.seed, device);
  using objective = model.objective;
  const [id, options] = contestants[name];
  const { method } = await trainMethods[id]();
  const weights = model.initial(cell.seed);
  const training = new Training({
    objective,
    weights,
    optimizer: {
      rate: cosine({ peak: rate, final: rate / 50, warmup: Math.min(50, steps / 4), steps }),
      beta2: 0.95,
      clip: 1,
    },
    steps,
    seed: cell.seed,
    method: (context) => method.start(context, method.options.parse(options)),
  });
  const records: { loss: number; flipRate: number; drift: number }[] = [];
  for (let step = 0; step < steps; step++) {
    await breathe(signal);
    const { loss } = await training.advance(model.train.batch(step));
    const { flipRate = 0, drift = 0 } = training.run.metrics?.() ?? {};
    records.push({ loss, flipRate, drift });
  }
  training.finish();
  const linear = model.parameters.filter(({ role }) => role === "inner");
  let zeros = 0;
  let all = 0;
  for (const { name } of linear) {
    const values = weights.get(name)!;
    for (let i = 0; i < values.length; i++) if (values[i] === 0) zeros++;
    all += values.length;
  }
  const smooth = (of: (record: (typeof records)[number]) => number) =>
    Array.from({ length: Math.ceil(steps / smoothing) }, (_, k) => {
      const some = records.slice(k * smoothing, (k + 1) * smoothing).map(of);
      return some.reduce((a, b) => a + b) / some.length;
    });
  return {
    testLoss: await meanLoss(objective, weights, model.test, 256, { signal }),
    sparsity: zeros / all,
    losses: smooth(({ loss }) => loss),
    flipRates: smooth(({ flipRate }) => flipRate),
    drifts: smooth(({ drift }) => drift),
  };
}

function report(cells: readonly FinishedCell[], protocol: Protocol) {
  const of = (name: string) =>
    cells.filter(({ settings }) => settings.name === name).map(({ result }) => result as FlipResult);
  const share = (results: FlipResult[], from: number, to: number) =>
    `${(100 * meanAndDeviation(results.map(({ flipRates: f }) => mean(f.slice(Math.floor(from * f.length), Math.ceil(to * f.length))))).mean).toFixed(3)} %`;
  const { layers, hiddenSize, intermediateSize, heads, window, batchSize, steps, rate } = protocol;
  const names = Object.keys(contestants).filter((name) => of(name).length > 0);
  const curve = (field: "flipRates" | "drifts" | "losses", shown: readonly string[]) =>
    shown.map((name) => ({
      name,
      points: (of(name)[0]?.[field] ?? []).map((value, k) => [k * smoothing, value] as const),
    }));
  const masked = names.filter((name) => name !== "dense" && name !== "prune, then train");
  return {
    protocol: [
      ["model", `Llama over characters, ${layers} layers, ${hiddenSize} wide, MLP ${intermediateSize}, ${heads} heads`],
      ["training", `${steps} steps of ${batchSize} × ${window} characters, AdamW at ${rate}, cosine, clip 1`],
      ["pattern", "2:4 in every linear map of the blocks; 'prune, then train' takes half of each matrix at half-time"],
      ["evaluation", "the last tenth of the text, after the zeros were made exact"],
    ] as const,
    tables: [
      {
        title: "Held-out loss and mask flips",
        columns: [
          "method",
          "nats a character",
          "sparsity",
          "steps between choices of a mask",
          "flips a choice, first tenth",
          "middle",
          "last tenth",
          "drift at the end",
        ],
        rows: names.map((name) => {
          const results = of(name);
          return [
            name,
            spread(
              results.map(({ testLoss }) => testLoss),
              4,
            ),
            `${(100 * results[0].sparsity).toFixed(1)} %`,
            masked.includes(name) ? `${intervalOf(name)}` : "–",
            share(results, 0, 0.1),
            share(results, 0.45, 0.55),
            share(results, 0.9, 1),
            `${(100 * meanAndDeviation(results.map(({ drifts }) => drifts.at(-1)!)).mean).toFixed(1)} %`,
          ];
        }),
      },
    ],
    figures: [
      {
        name: "flip-rate",
        title: "Share of mask entries that change in a step",
        picture: lineChart(curve("flipRates", masked), {
          title: "Mask flips",
          names: "below",
          xLabel: "step",
          yLabel: "share of entries",
          logY: true,
        }),
      },
      {
        name: "drift",
        title: "Share of mask entries that differ from the first mask",
        picture: lineChart(curve("drifts", masked), {
          title: "Mask drift",
          names: "below",
          xLabel: "step",
          yLabel: "share of entries",
        }),
      },
      {
        name: "loss",
        title: "Training loss",
        picture: lineChart(curve("losses", names), {
          title: "Training loss",
          names: "below",
          xLabel: "step",
          yLabel: "nats a character",
        }),
      },
    ],
    notes: [
      "Flips are those of one choice of masks against the choice before; between two choices a method repeats its last figure.",
      "The lecture reports 6 % of mask bits flipping per iteration for the plain straight-through estimator; the rate is proportional to the learning rate.",
    ],
  };
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

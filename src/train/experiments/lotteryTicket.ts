import { breathe, meanAndDeviation, spread } from "../../core/index.js";
import { lineChart } from "../../report/internal.js";
import { batchOfStep } from "../data/rows.js";
import { spiralsData } from "../data/spirals.js";
import { method as fixedMask } from "../methods/fixedMask.js";
import { pruneSurvivors, randomMasks } from "../methods/lottery.js";
import { initialMlp, type MlpConfig } from "../models/mlp.js";
import type { Batch } from "../objective.js";
import { constant } from "../optimizers/schedule.js";
import { randomFor } from "../seeds.js";
import { applyMasks, densityOf, fullMasks, type MutableMasks } from "../selection/masks.js";
import { Training } from "../training.js";
import { cloneValues, type FloatArray } from "../values.js";
import type { Cell, CellOptions, CellResult, Experiment, FinishedCell, Scale } from "./contract.js";

const network: MlpConfig = { widths: [2, 200, 300, 2], activation: "relu", task: "classification" };
const batchSize = 100;
const rate = 1e-3;
const share = 0.2;

interface Protocol {
  /** Pruning rounds after the dense one. */
  rounds: number;
  steps: number;
  /** Step whose weights survivors go back to. */
  rewindTo: number;
}

const protocols: Readonly<Record<Scale, Protocol>> = {
  smoke: { rounds: 1, steps: 10, rewindTo: 2 },
  laptop: { rounds: 15, steps: 400, rewindTo: 0 },
  gpu: { rounds: 20, steps: 4000, rewindTo: 0 },
};

/** What is trained under the mask of each round. */
const variants = {
  ticket: "survivors back at their first values",
  fresh: "the same mask, fresh random values",
  random: "a random mask of the same density",
} as const;
type Variant = keyof typeof variants;

interface Round {
  density: number;
  /** Test accuracy, per cent. */
  accuracy: Partial<Record<Variant, number>>;
}

interface TicketResult extends CellResult {
  rounds: Round[];
}

export const experiment: Experiment = {
  id: "lottery-ticket",
  title: "Lottery tickets on the two spirals",
  description:
    "A 2-200-300-2 ReLU network on the two spirals: train, drop a fifth of the surviving weights of each layer, put the others back to their first values, and again; beside it the same masks with fresh values, and random masks of the same density.",
  seeds: { smoke: 1, laptop: 3, gpu: 5 },
  plan: (scale, seeds) =>
    Array.from({ length: seeds }, (_, seed) => ({
      key: `seed${seed}`,
      seed,
      settings: { scale, ...protocols[scale] },
    })),
  run: tickets,
  report: async (cells, scale) => report(cells, protocols[scale]),
};

async function tickets(cell: Cell, { signal, device }: CellOptions): Promise<TicketResult> {
  const [{ startEngine }, { tracedObjective }, { mlp }] = await Promise.all([
    import("../engine/engine.js"),
    import("../engine/tracedObjective.js"),
    import("../models/mlp.js"),
  ]);
  await startEngine(device);
  const { rounds, steps, rewindTo } = cell.settings as unknown as Protocol;
  const model = mlp(network);
  using objective = tracedObjective(model);
  const data = spiralsData(randomFor(cell.seed, "data"));
  const begin = (purpose: string) => initialMlp(model.parameters, randomFor(cell.seed, purpose));

  /** @returns the trained weights, and those at the rewind point */
  const train = async (start: Map<string, FloatArray>, masks: MutableMasks) => {
    const weights = cloneValues(start);
    applyMasks(weights, masks);
    const training = new Training({
      objective,
      weights,
      optimizer: { rate: constant(rate) },
      steps,
      seed: cell.seed,
      method: (context) => fixedMask.start(context, fixedMask.options.parse({})),
    });
    let early = start;
    for (let step = 0; step < steps; step++) {
      if (step === rewindTo) early = cloneValues(weights);
      await breathe(signal);
      await training.advance(batchOfStep(data.train, batchSize, cell.seed, step));
    }
    return { weights, early };
  };
  const accuracy = async (weights: ReadonlyMap<string, FloatArray>) =>
    percentRight(await objective.predict(weights, data.test), data.test);

  const first = begin("weights");
  const masks = fullMasks(model.parameters, first);
  const dense = await train(first, masks);
  const rewound = dense.early;
  let trained = dense.weights;
  const found: Round[] = [{ density: 1, accuracy: { ticket: await accuracy(trained) } }];
  for (let round = 1; round <= rounds; round++) {
    pruneSurvivors(masks, trained, model.parameters, share);
    trained = (await train(rewound, masks)).weights;
    const fresh = await train(begin(`fresh ${round}`), masks);
    const shuffled = randomMasks(masks, randomFor(cell.seed, "random mask", round));
    const random = await train(rewound, shuffled);
    found.push({
      density: densityOf(masks),
      accuracy: {
        ticket: await accuracy(trained),
        fresh: await accuracy(fresh.weights),
        random: await accuracy(random.weights),
      },
    });
  }
  return { rounds: found };
}

function percentRight(logits: FloatArray, { label }: Batch): number {
  let right = 0;
  for (let i = 0; i < label.values.length; i++) {
    if (Number(logits[2 * i + 1] > logits[2 * i]) === label.values[i]) right++;
  }
  return (100 * right) / label.values.length;
}

function report(cells: readonly FinishedCell[], protocol: Protocol) {
  const results = cells.map(({ result }) => result as TicketResult);
  const count = Math.max(...results.map(({ rounds }) => rounds.length));
  const of = (round: number, variant: Variant) =>
    results.flatMap(({ rounds }) => rounds[round]?.accuracy[variant] ?? rounds[0].accuracy.ticket!);
  const names = Object.keys(variants) as Variant[];
  const densityAt = (round: number) => meanAndDeviation(results.map(({ rounds }) => rounds[round].density)).mean;
  return {
    protocol: [
      ["network", "2-200-300-2, ReLU, 61 000 weights"],
      [
        "training",
        `Adam at ${rate}, ${protocol.steps} steps of ${batchSize}, every round from step ${protocol.rewindTo}`,
      ],
      ["pruning", "a fifth of the smallest survivors of each layer a round, a tenth in the last layer"],
    ] as const,
    tables: [
      {
        title: "Test accuracy, %",
        columns: ["density", ...names.map((name) => variants[name])],
        rows: Array.from({ length: count }, (_, round) => [
          `${(100 * densityAt(round)).toFixed(1)} %`,
          ...names.map((name) => spread(of(round, name), 2)),
        ]),
      },
    ],
    figures: [
      {
        name: "accuracy",
        title: "Test accuracy by density",
        picture: lineChart(
          names.map((name) => ({
            name: variants[name],
            points: Array.from(
              { length: count },
              (_, round) => [100 * densityAt(round), meanAndDeviation(of(round, name)).mean] as const,
            ),
          })),
          {
            title: "Lottery tickets, two spirals",
            names: "below",
            xLabel: "density, %",
            yLabel: "test accuracy, %",
            logX: true,
          },
        ),
      },
    ],
    notes: ["At density 100 % the three are one network."],
  };
}

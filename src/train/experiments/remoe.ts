import { breathe, spread } from "../../core/index.js";
import { lineChart } from "../../report/internal.js";
import { method as dense } from "../methods/dense.js";
import { biasControl, sparsityControl } from "../models/routers.js";
import type { BatchControl, Objective } from "../objective.js";
import { cosine } from "../optimizers/schedule.js";
import { Training } from "../training.js";
import { type CharacterExperts, type CharacterModelSize, characterModel } from "./characterModel.js";
import type { Cell, CellOptions, CellResult, Experiment, FinishedCell, Scale } from "./contract.js";

interface Protocol extends CharacterModelSize {
  steps: number;
  rate: number;
  experts: number;
  expertsPerToken: number;
}

const protocols: Readonly<Record<Scale, Protocol>> = {
  smoke: {
    layers: 1,
    hiddenSize: 16,
    intermediateSize: 16,
    heads: 2,
    window: 16,
    batchSize: 4,
    steps: 12,
    rate: 3e-3,
    experts: 4,
    expertsPerToken: 1,
  },
  laptop: {
    layers: 2,
    hiddenSize: 64,
    intermediateSize: 64,
    heads: 4,
    window: 64,
    batchSize: 8,
    steps: 1000,
    rate: 3e-3,
    experts: 8,
    expertsPerToken: 1,
  },
  gpu: {
    layers: 6,
    hiddenSize: 256,
    intermediateSize: 256,
    heads: 8,
    window: 256,
    batchSize: 32,
    steps: 10_000,
    rate: 1e-3,
    experts: 8,
    expertsPerToken: 1,
  },
};

type Contestant = {
  moe(protocol: Protocol): CharacterExperts | undefined;
  control?(protocol: Protocol): BatchControl;
};

const sizes = ({ layers, experts, expertsPerToken, batchSize, window }: Protocol) => ({
  layers,
  experts,
  expertsPerToken,
  tokens: batchSize * window,
});

/** All have as many parameters at work for a token: k experts of the width that the dense MLP has. */
const contestants: Readonly<Record<string, Contestant>> = {
  "dense, one expert": { moe: () => undefined },
  "top-k, balance loss": {
    moe: ({ experts, expertsPerToken }) => ({
      experts,
      expertsPerToken,
      routing: "softmax",
      normalised: false,
      balance: 0.01,
      zLoss: 1e-3,
    }),
  },
  "top-k, biases": {
    moe: ({ experts, expertsPerToken }) => ({ experts, expertsPerToken, routing: "bias", normalised: false }),
    control: (protocol) => biasControl({ ...sizes(protocol), speed: 1e-2 }),
  },
  ReMoE: {
    moe: ({ experts, expertsPerToken }) => ({ experts, expertsPerToken, routing: "relu" }),
    control: (protocol) => sparsityControl(sizes(protocol)),
  },
};

const textName = "calib.txt";
const smoothing = 10;
const evaluationWindows = 256;

interface MoeResult extends CellResult {
  /** Nats per character on the held-out tenth. */
  testLoss: number;
  /** Experts at work for a token and layer, over the last tenth of training. */
  activeExperts: number;
  /** Largest share of a layer's choices that one expert has, over the last tenth; 1/E is even. */
  largestShare: number;
  losses: number[];
  /** Share of experts that are silent. */
  sparsities: number[];
  /** ReMoE's λ. */
  weights: number[];
}

export const experiment: Experiment = {
  id: "remoe",
  title: "ReLU routing against top-k routing",
  description:
    "Small character models whose MLPs are mixtures of eight experts, trained with top-k routing (balanced by a loss, or by biases) and with ReLU routing (ReMoE) at equal active parameters: held-out loss, load of the experts, and how the sparsity of ReLU routing settles.",
  seeds: { smoke: 1, laptop: 3, gpu: 3 },
  texts: [textName],
  plan: (scale, seeds) =>
    Array.from({ length: seeds }, (_, seed) =>
      Object.keys(contestants).map((name, i) => ({ key: `router${i}-seed${seed}`, seed, settings: { scale, name } })),
    ).flat(),
  run: train,
  report: async (cells, scale) => report(cells, protocols[scale]),
};

async function train(cell: Cell, { signal, readText, device }: CellOptions): Promise<MoeResult> {
  const { scale, name } = cell.settings as { scale: Scale; name: string };
  const protocol = protocols[scale];
  const { steps, rate, experts, layers } = protocol;
  const moe = contestants[name].moe(protocol);
  const control = contestants[name].control?.(protocol);
  const model = await characterModel(await readText(textName), protocol, cell.seed, device, { mixture: moe });
  using objective = model.objective;
  const training = new Training({
    objective,
    weights: model.initial(cell.seed),
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
  const tokens = protocol.batchSize * protocol.window;
  const records: { loss: number; active: number; largest: number; weight: number }[] = [];
  for (let step = 0; step < steps; step++) {
    await breathe(signal);
    const { measured } = await training.advance(model.train.batch(step));
    const loads = moe === undefined ? [] : Array.from({ length: layers }, (_, layer) => measured.get(`load.${layer}`)!);
    const totals = loads.map(sum);
    records.push({
      loss: measured.get("prediction")![0],
      active: moe === undefined ? 1 : sum(totals) / (layers * tokens),
      largest: Math.max(1 / experts, ...loads.map((load, l) => Math.max(...load) / Math.max(1, totals[l]))),
      weight: control?.arrays().routerSparsityWeight?.values[0] ?? 0,
    });
  }
  const late = records.slice(-Math.max(1, Math.floor(steps / 10)));
  const smooth = (of: (record: (typeof records)[number]) => number) =>
    Array.from({ length: Math.ceil(steps / smoothing) }, (_, k) =>
      mean(records.slice(k * smoothing, (k + 1) * smoothing).map(of)),
    );
  return {
    testLoss: await predictionLoss(objective, training, model.test.inOrder(evaluationWindows), control, signal),
    activeExperts: mean(late.map(({ active }) => active)),
    largestShare: mean(late.map(({ largest }) => largest)),
    losses: smooth(({ loss }) => loss),
    sparsities: smooth(({ active }) => 1 - active / experts),
    weights: smooth(({ weight }) => weight),
  };
}

/** The loss of prediction alone, without what the routers add to it. */
async function predictionLoss(
  objective: Objective,
  { weights }: Training,
  batches: Iterable<Parameters<Objective["loss"]>[1]>,
  control: BatchControl | undefined,
  signal: AbortSignal | undefined,
): Promise<number> {
  const losses: number[] = [];
  for (const batch of batches) {
    await breathe(signal);
    const { measured } = await objective.lossAndGradients(weights, { ...batch, ...control?.arrays() });
    losses.push(measured.get("prediction")![0]);
  }
  return mean(losses);
}

function report(cells: readonly FinishedCell[], protocol: Protocol) {
  const of = (name: string) =>
    cells.filter(({ settings }) => settings.name === name).map(({ result }) => result as MoeResult);
  const names = Object.keys(contestants).filter((name) => of(name).length > 0);
  const { layers, hiddenSize, intermediateSize, heads, window, batchSize, steps, rate, experts, expertsPerToken } =
    protocol;
  const curve = (field: "losses" | "sparsities" | "weights", shown: readonly string[]) =>
    shown.map((name) => ({
      name,
      points: (of(name)[0]?.[field] ?? []).map((value, k) => [k * smoothing, value] as const),
    }));
  const mixtures = names.filter((name) => !name.startsWith("dense"));
  return {
    protocol: [
      [
        "model",
        `Llama over characters, ${layers} layers, ${hiddenSize} wide, ${heads} heads; ${experts} experts of ${intermediateSize}, ${expertsPerToken} a token`,
      ],
      ["training", `${steps} steps of ${batchSize} × ${window} characters, AdamW at ${rate}, cosine, clip 1`],
      ["routers", "balance loss 0.01 and z-loss 0.001; biases at speed 0.01; ReMoE from λ 10⁻⁸, factor 1.2"],
      ["evaluation", "the last tenth of the text, prediction loss alone"],
    ] as const,
    tables: [
      {
        title: "Held-out loss at equal active parameters",
        columns: ["router", "nats a character", "experts at work", "largest share of an expert"],
        rows: names.map((name) => [
          name,
          spread(
            of(name).map(({ testLoss }) => testLoss),
            4,
          ),
          spread(
            of(name).map(({ activeExperts }) => activeExperts),
            2,
          ),
          spread(
            of(name).map(({ largestShare }) => 100 * largestShare),
            1,
          ),
        ]),
      },
    ],
    figures: [
      {
        name: "loss",
        title: "Prediction loss in training",
        picture: lineChart(curve("losses", names), {
          title: "Training loss",
          names: "below",
          xLabel: "step",
          yLabel: "nats a character",
        }),
      },
      {
        name: "sparsity",
        title: `Share of silent experts; the aim is ${(100 * (1 - expertsPerToken / experts)).toFixed(1)} %`,
        picture: lineChart(curve("sparsities", mixtures), {
          title: "Silent experts",
          names: "below",
          xLabel: "step",
          yLabel: "share",
          yRange: [0, 1],
        }),
      },
      {
        name: "lambda",
        title: "Weight of ReMoE's sparsity loss",
        picture: lineChart(curve("weights", ["ReMoE"]), {
          title: "λ",
          names: "below",
          xLabel: "step",
          yLabel: "λ",
          logY: true,
        }),
      },
    ],
    notes: [
      "The paper shows ReMoE below top-k routing over sizes, numbers of experts and granularities; these models are smaller by four orders of magnitude.",
    ],
  };
}

const sum = (values: ArrayLike<number>) => Array.from(values).reduce((a, b) => a + b, 0);
const mean = (values: readonly number[]) => sum(values) / values.length;

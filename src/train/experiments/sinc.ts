import { sincData } from "../data/sinc.js";
import { randomFor } from "../seeds.js";
import type { Experiment, Scale } from "./contract.js";
import { densities, type Protocol, planRuns, type Task, trainSparse } from "./hardThresholding.js";
import { hardThresholdingReport, type Published } from "./hardThresholdingReport.js";

const samples = 300;
const noiseVariance = 0.005;

const task: Task = {
  network: { widths: [1, 200, 300, 1], activation: "sigmoid", task: "regression" },
  data: (seed) => ({
    train: sincData(randomFor(seed, "train data"), samples, noiseVariance),
    test: sincData(randomFor(seed, "test data"), samples, noiseVariance),
  }),
  score(predicted, { target }) {
    let sum = 0;
    for (let i = 0; i < predicted.length; i++) sum += (predicted[i] - target.values[i]) ** 2;
    return Math.sqrt(sum / predicted.length);
  },
  pictured: { density: 0.4, scope: "global" },
};

const protocols: Readonly<Record<Scale, Protocol>> = {
  smoke: { steps: 20, batchSize: 100, rate: 1e-2, densities: [1, 0.4] },
  laptop: { steps: 2000, batchSize: 100, rate: 1e-2, densities },
  gpu: { steps: 20_000, batchSize: 300, rate: 1e-3, densities },
};

/** Root-mean-square errors of the study. */
const published: Published = new Map([
  [1, { global: [0.0701, 0.0931], layer: [0.0701, 0.0931] }],
  [0.9, { global: [0.0724, 0.1329], layer: [0.0706, 0.0971] }],
  [0.8, { global: [0.0715, 0.1156], layer: [0.0704, 0.0851] }],
  [0.7, { global: [0.072, 0.1111], layer: [0.0711, 0.0943] }],
  [0.6, { global: [0.0713, 0.1032], layer: [0.0705, 0.0887] }],
  [0.5, { global: [0.0703, 0.1123], layer: [0.0694, 0.0932] }],
  [0.4, { global: [0.0743, 0.1626], layer: [0.0695, 0.0901] }],
  [0.3, { global: [0.0842, 0.2829], layer: [0.0855, 0.2756] }],
  [0.2, { global: [0.0805, 0.2184], layer: [0.0875, 0.3064] }],
  [0.1, { global: [0.0941, 0.3885], layer: [0.1037, 0.6664] }],
  [0.05, { global: [0.1766, 0.8886], layer: [0.1067, 0.6575] }],
]);

export const experiment: Experiment = {
  id: "sinc",
  title: "Sinc regression under hard thresholding",
  description:
    "sin(x)/x with noise, learnt by a 1-200-300-1 sigmoid network whose weights are cut to the largest s after every step, with one budget for all layers (global) or one for each inner layer, at eleven densities.",
  seeds: { smoke: 1, laptop: 5, gpu: 5 },
  plan: (scale, seeds) => planRuns(protocols[scale], seeds),
  run: (cell, options) => trainSparse(task, cell, options),
  report: (cells, scale) =>
    hardThresholdingReport(cells, {
      title: "Sinc",
      metric: "RMSE",
      places: 4,
      published,
      protocol: protocols[scale],
      task,
      facts: [
        [
          "data",
          `${samples} points, x uniform on [−10, 10], y = sin(x)/x + N(0, ${noiseVariance}); a test set drawn alike`,
        ],
        ["network", "1-200-300-1, sigmoid, 60 500 weights, uniform ±1/√fan-in at the start"],
      ],
      notes: [
        "The noise alone is an RMSE of 0.0707: a training error below it is over-fitting, a test error cannot lie below it but by chance.",
        "The study does not tell its batch size, its range of x or its test set; its test errors of 0.2 and more at low density say that its test points lay outside of what the training points cover.",
      ],
    }),
};

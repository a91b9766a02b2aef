import { breathe, Stage, spread } from "../../core/index.js";
import { greyPngUrl, html, lineChart, type Picture } from "../../report/internal.js";
import { type Layer, QuantumLayer } from "../quantum/layers.js";
import { AdamFit, type ModelSizes, models, paperSizes } from "../quantum/network.js";
import { enlarged, gridOf, type Signal, signalNamed, signalNames } from "../quantum/signals.js";
import { randomFor } from "../seeds.js";
import type { Cell, CellOptions, CellResult, Experiment, FinishedCell, Scale } from "./contract.js";

interface Protocol extends ModelSizes {
  steps: number;
  rate: number;
  /** Points of the tone, and along each side of a picture. */
  points: number;
  side: number;
  /** Of the pictures that super-resolution is held against. */
  finerSide: number;
  signals: readonly string[];
}

const paper = { ...paperSizes, rate: 0.03, points: 1000, side: 32, finerSide: 64, signals: signalNames };

const protocols: Readonly<Record<Scale, Protocol>> = {
  smoke: {
    ...paper,
    hybridLayers: 2,
    qubits: 3,
    steps: 8,
    points: 40,
    side: 8,
    finerSide: 15,
    signals: ["tone", "cup"],
  },
  laptop: { ...paper, steps: 100, points: 250, side: 16, finerSide: 32 },
  gpu: { ...paper, steps: 301 },
};

/**
 * The models of the paper at its rate, and SIREN with a factor inside its sines, as that was published with; the paper's comparison has
 * none. A factor wants a smaller rate.
 */
const contestants: Readonly<Record<string, { model: string; rate?: number; frequency?: number }>> = {
  ...Object.fromEntries(Object.keys(models).map((model) => [model, { model }])),
  "SIREN, frequency 5": { model: "SIREN", rate: 0.01, frequency: 5 },
  "SIREN, frequency 10": { model: "SIREN", rate: 0.01, frequency: 10 },
};

/** Mean squared errors of the paper, without a unit there; the signals here are other ones. */
const published: Readonly<Record<string, readonly string[]>> = {
  ReLU: ["6.8", "9.9 / 2.7 / 4.2", "33.8 / 11.3 / 13.5"],
  Tanh: ["14.0", "20.7 / 5.8 / 14.8", "47.8 / 15.2 / 26.7"],
  "ReLU + RFF": ["6.0", "5.1 / 1.9 / 4.9", "39.9 / 13.3 / 23.9"],
  SIREN: ["5.5", "9.0 / 1.5 / 2.3", "77.0 / 26.3 / 15.7"],
  QIREN: ["5.5", "4.0 / 1.1 / 1.5", "24.3 / 7.9 / 9.4"],
};

interface Fit extends CellResult {
  /** Mean squared error over the points that were learnt. */
  error: number;
  parameters: number;
  samples: number;
  losses: number[];
  values: number[];
  /** Of a picture: over the finer grid, by the model and by reading between the points that were learnt. */
  finer?: { model: number; nearest: number; bilinear: number; values: number[] };
  /** Angles of circuits whose gradient is 0 to rounding, whatever the data. */
  deadParameters?: number;
}

const signalOf = (name: string, { points, side }: Protocol): Signal =>
  signalNamed(name, name === "tone" ? points : side);

const meanSquare = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
  return sum / a.length;
};

/** Numbers as they are stored: what a picture shows needs no more places. */
const short = (values: ArrayLike<number>) => Array.from(values, (value) => Number(value.toFixed(4)));

export const experiment: Experiment = {
  id: "qiren",
  title: "Quantum implicit networks against classical ones",
  description:
    "A tone and three pictures as functions of their coordinates, learnt by QIREN (circuits of eight qubits between linear maps, simulated exactly) and by ReLU, Tanh, ReLU over Fourier features and SIREN, at three frequencies, of somewhat more parameters; pictures are also read on a finer grid. Counts the angles that no gradient reaches.",
  seeds: { smoke: 1, laptop: 3, gpu: 3 },
  plan(scale, seeds) {
    const cells: Cell[] = [];
    for (let seed = 0; seed < seeds; seed++) {
      for (const signal of protocols[scale].signals) {
        for (const [m, model] of Object.keys(contestants).entries()) {
          cells.push({ key: `${signal}-model${m}-seed${seed}`, seed, settings: { scale, signal, model } });
        }
      }
    }
    return cells;
  },
  run: fit,
  report,
};

async function fit(cell: Cell, { signal: stop, onProgress }: CellOptions): Promise<Fit> {
  const { scale, signal: name, model } = cell.settings as { scale: Scale; signal: string; model: string };
  const protocol = protocols[scale];
  const { model: kind, ...settings } = contestants[model];
  const { rate, ...sizes } = { ...protocol, ...settings };
  const signal = signalOf(name, protocol);
  const network = models[kind](signal.dimensions, randomFor(cell.seed, `qiren/${model}/${name}`), sizes);
  const x = gridOf(signal);
  const adam = new AdamFit(network, rate);
  const progress = new Stage("fit", protocol.steps, "steps", onProgress);
  const losses: number[] = [];
  for (let step = 0; step < protocol.steps; step++) {
    await breathe(stop);
    losses.push(adam.step(x, signal.values));
    progress.advance(1);
  }
  const deadParameters = model === "QIREN" ? deadAngles(network.layers) : undefined;
  const values = network.forward(x, signal.values.length, true);
  return {
    error: meanSquare(values, signal.values),
    parameters: network.parameterCount,
    samples: signal.values.length,
    losses: short(losses.map(Math.log10)),
    values: short(values),
    ...(deadParameters !== undefined && { deadParameters }),
    ...(signal.dimensions === 2 && {
      finer: onFinerGrid(signal, name, protocol, (at, n) => network.forward(at, n, false)),
    }),
  };
}

/** After the last step: angles whose gradient is nothing but rounding. */
function deadAngles(layers: readonly Layer[]): number {
  let dead = 0;
  for (const layer of layers) {
    if (!(layer instanceof QuantumLayer)) continue;
    const most = layer.gradient.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    dead += layer.gradient.filter((value) => Math.abs(value) < 1e-11 * most).length;
  }
  return dead;
}

function onFinerGrid(
  signal: Signal,
  name: string,
  { finerSide }: Protocol,
  read: (x: Float64Array, samples: number) => Float64Array,
): Fit["finer"] {
  const coarse = signalNamed(name, signal.size);
  const finer = signalNamed(name, finerSide);
  const made = read(gridOf(finer), finerSide ** 2);
  return {
    model: meanSquare(made, finer.values),
    nearest: meanSquare(enlarged(coarse, finerSide, "nearest"), finer.values),
    bilinear: meanSquare(enlarged(coarse, finerSide, "bilinear"), finer.values),
    values: short(made),
  };
}

const thousandths = (values: readonly number[]) =>
  spread(
    values.map((value) => 1000 * value),
    2,
  );

async function report(cells: readonly FinishedCell[], scale: Scale) {
  const protocol = protocols[scale];
  const of = (model: string, signal: string) =>
    cells
      .filter(({ settings }) => settings.model === model && settings.signal === signal)
      .map(({ result }) => result as Fit);
  const names = Object.keys(contestants).filter((model) => cells.some(({ settings }) => settings.model === model));
  const pictures = protocol.signals.filter((signal) => signal !== "tone");
  const size = (model: string, signal: string) => {
    const [first] = of(model, signal);
    return first === undefined
      ? ["–", "–"]
      : [String(first.parameters), (100 * (1 - first.parameters / first.samples)).toFixed(1)];
  };
  const finer = (signal: string, read: (fit: NonNullable<Fit["finer"]>) => number, model: string) =>
    thousandths(of(model, signal).flatMap((found) => (found.finer ? [read(found.finer)] : [])));
  const dead = names.includes("QIREN") ? of("QIREN", protocol.signals[0])[0]?.deadParameters : undefined;
  const { steps, rate, points, side, finerSide, hybridLayers, qubits, uploads } = protocol;
  return {
    protocol: [
      ["signals", `made by formula: a tone of ${points} points, pictures of ${side} × ${side}, all in −1 … 1`],
      [
        "QIREN",
        `${hybridLayers} times linear, batch norm and a circuit of ${qubits} qubits with ${uploads} uploads, exact in f64`,
      ],
      [
        "training",
        `all points in each of ${steps} steps, Adam at ${rate}${Object.entries(contestants)
          .filter(([, own]) => own.rate !== undefined)
          .map(([name, own]) => `; ${name} at ${own.rate}`)
          .join("")}`,
      ],
      ["finer grid", `${finerSide} × ${finerSide}, norms with the statistics of the last step`],
    ] as const,
    tables: [
      {
        title: "Mean squared error, thousandths",
        columns: [
          "model",
          "parameters (tone, pictures)",
          "saved, %",
          ...protocol.signals,
          "paper: cello",
          "paper: pictures",
        ],
        rows: names.map((model) => [
          model,
          [size(model, "tone")[0], size(model, pictures[0])[0]].join(", "),
          [size(model, "tone")[1], size(model, pictures[0])[1]].join(", "),
          ...protocol.signals.map((signal) => thousandths(of(model, signal).map(({ error }) => error))),
          ...(published[model]?.slice(0, 2) ?? ["–", "–"]),
        ]),
      },
      {
        title: "On the finer grid, thousandths",
        columns: ["model", ...pictures, "paper: pictures"],
        rows: [
          [
            "nearest point",
            ...pictures.map((signal) => finer(signal, ({ nearest }) => nearest, names[0])),
            "26.6 / 10.4 / 13.6",
          ],
          [
            "bilinear",
            ...pictures.map((signal) => finer(signal, ({ bilinear }) => bilinear, names[0])),
            "25.2 / 9.2 / 12.2",
          ],
          ...names.map((model) => [
            model,
            ...pictures.map((signal) => finer(signal, (fit) => fit.model, model)),
            published[model]?.[2] ?? "–",
          ]),
        ],
      },
    ],
    figures: [
      ...protocol.signals.map((signal) => ({
        name: `qiren-loss-${signal}`,
        title: `${signal}: mean squared error by step, seed 0`,
        picture: lineChart(
          names.map((model) => ({
            name: model,
            points: (of(model, signal)[0]?.losses ?? []).map((loss, step) => [step + 1, 10 ** loss] as const),
          })),
          { title: `${signal}: error by step`, xLabel: "step", logY: true, names: "below" },
        ),
      })),
      ...(await Promise.all(
        pictures.map(async (signal) => ({
          name: `qiren-picture-${signal}`,
          title: `${signal} on the finer grid, seed 0`,
          picture: await gallery(
            signal,
            [
              ["by formula", signalNamed(signal, finerSide).values],
              ...names.map((model) => [model, of(model, signal)[0]?.finer?.values ?? []] as const),
            ],
            finerSide,
          ),
        })),
      )),
    ],
    notes: [
      "The paper learns a clip of a cello and three photographs, and gives no unit of its errors; the signals here are other ones, so that only the order of the models can be compared.",
      ...(dead === undefined
        ? []
        : [
            `Of QIREN's angles ${dead} have a gradient of 0: the first φ of every qubit turns |0…0>, and the last ω commutes with what is measured. They may be dropped without changing anything but the count.`,
          ]),
    ],
  };
}

const shown = 96;

/** Grey pictures beside each other, −1 black and 1 white. */
async function gallery(
  title: string,
  pictures: readonly (readonly [name: string, values: ArrayLike<number>])[],
  side: number,
): Promise<Picture> {
  const urls = await Promise.all(
    pictures.map(([, values]) =>
      greyPngUrl(
        Uint8Array.from({ length: side * side }, (_, i) =>
          Math.round(127.5 * (1 + Math.max(-1, Math.min(1, values[i] ?? -1)))),
        ),
        side,
        side,
      ),
    ),
  );
  return {
    width: pictures.length * (shown + 8),
    height: shown + 18,
    title,
    body: html`${pictures.map(
      (
        [name],
        p,
      ) => html`<image href="${urls[p]}" x="${p * (shown + 8)}" y="0" width="${shown}" height="${shown}" style="image-rendering: pixelated"/>
<text x="${p * (shown + 8) + shown / 2}" y="${shown + 13}" text-anchor="middle">${name}</text>`,
    )}`,
  };
}

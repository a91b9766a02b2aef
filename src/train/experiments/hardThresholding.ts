import { breathe } from "../../core/index.js";
import { type GreyMap, greyMap } from "../../report/internal.js";
import { batchOfStep } from "../data/rows.js";
import { method as iht } from "../methods/iht.js";
import { initialMlp, type MlpConfig } from "../models/mlp.js";
import type { Batch, Objective } from "../objective.js";
import { constant } from "../optimizers/schedule.js";
import { randomFor } from "../seeds.js";
import { supportOverlap } from "../selection/retention.js";
import { Training } from "../training.js";
import type { FloatArray } from "../values.js";
import type { Cell, CellOptions, CellResult } from "./contract.js";

/** A small network trained by iterative hard thresholding at many densities: what Sinc and the spirals share. */
export interface Task {
  network: MlpConfig;
  /** Training and test data of a seed. */
  data(seed: number): { train: Batch; test: Batch };
  /** The figure of the table, of a model's outputs. */
  score(predicted: FloatArray, batch: Batch): number;
  /** Density whose retention counts are kept as a picture. */
  pictured: { density: number; scope: Scope };
}

export type Scope = "global" | "layer";

export const densities = [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05] as const;

export interface Protocol {
  steps: number;
  batchSize: number;
  rate: number;
  densities: readonly number[];
}

/** What one training run leaves behind. */
export interface RunResult extends CellResult {
  train: number;
  test: number;
  /** Loss of each 50th step. */
  losses: number[];
  /** Non-zero share of each weight matrix, first to last layer. */
  layerDensities: number[];
  /** |most often kept ∩ final support| / s over the sparse matrices. */
  overlap: number;
  /** Where the study's criterion, squared movement of a step below 10⁻³, would have ended training. */
  stop: { step: number; train: number; test: number } | null;
  pictures?: { retention: GreyMap[]; kept: GreyMap[] };
}

/** Both scopes at every density; at density 1 they are the same run, made once. */
export function planRuns(protocol: Protocol, seeds: number): Cell[] {
  const cells: Cell[] = [];
  for (let seed = 0; seed < seeds; seed++) {
    for (const density of protocol.densities) {
      for (const scope of density === 1 ? (["global"] as const) : (["global", "layer"] as const)) {
        cells.push({
          key: `${scope}-${Math.round(density * 100)}-seed${seed}`,
          seed,
          settings: { scope, density, steps: protocol.steps, batchSize: protocol.batchSize, rate: protocol.rate },
        });
      }
    }
  }
  return cells;
}

const stillness = 1e-3;
const lossEvery = 50;

export async function trainSparse(
  task: Task,
  cell: Cell,
  { signal, onProgress, device }: CellOptions,
): Promise<RunResult> {
  const { mlp } = await import("../models/mlp.js");
  const { startEngine } = await import("../engine/engine.js");
  const { tracedObjective } = await import("../engine/tracedObjective.js");
  await startEngine(device);
  const { scope, density, steps, batchSize, rate } = cell.settings as unknown as {
    scope: Scope;
    density: number;
  } & Protocol;
  const model = mlp(task.network);
  using objective: Objective = tracedObjective(model);
  const data = task.data(cell.seed);
  const training = new Training({
    objective,
    weights: initialMlp(model.parameters, randomFor(cell.seed, "weights")),
    optimizer: { rate: constant(rate) },
    steps,
    seed: cell.seed,
    method: (context) => iht.start(context, iht.options.parse({ density, scope, countRetention: true })),
  });

  const losses: number[] = [];
  const evaluate = async (batch: Batch) => task.score(await objective.predict(training.weights, batch), batch);
  let stop: RunResult["stop"] = null;
  const before = new Map(Array.from(training.weights, ([name, values]) => [name, values.slice()]));
  for (let step = 0; step < steps; step++) {
    const { loss } = await training.advance(batchOfStep(data.train, batchSize, cell.seed, step));
    if (step % lossEvery === 0) {
      losses.push(loss);
      onProgress?.({ stage: cell.key, done: step, total: steps, unit: "steps", elapsedMs: 0 });
      await breathe(signal);
    }
    if (stop === null && movedSince(before, training.weights) < stillness) {
      stop = { step, train: await evaluate(data.train), test: await evaluate(data.test) };
    }
  }

  const { retention } = training.run.state as { retention: Record<string, Int32Array> };
  const matrices = model.parameters.filter(({ shape }) => shape.length === 2);
  const layerDensities = matrices.map(({ name }) => {
    const values = training.weights.get(name)!;
    let zeros = 0;
    for (let i = 0; i < values.length; i++) if (values[i] === 0) zeros++;
    return 1 - zeros / values.length;
  });
  const result: RunResult = {
    train: await evaluate(data.train),
    test: await evaluate(data.test),
    losses,
    layerDensities,
    overlap: overallOverlap(retention, training.run.masks!),
    stop,
  };
  if (cell.seed === 0 && density === task.pictured.density && scope === task.pictured.scope) {
    result.pictures = {
      retention: matrices
        .filter(({ name }) => name in retention)
        .map(({ name, shape }) => greyMap(retention[name], shape[0], shape[1])),
      kept: matrices.map(({ name, shape }) =>
        greyMap(
          Uint8Array.from(training.weights.get(name)!, (w) => (w === 0 ? 0 : 1)),
          shape[0],
          shape[1],
        ),
      ),
    };
  }
  return result;
}

/** Σ (w − before)², and `before` becomes w. */
function movedSince(before: ReadonlyMap<string, FloatArray>, weights: ReadonlyMap<string, FloatArray>): number {
  let sum = 0;
  for (const [name, values] of weights) {
    const old = before.get(name)!;
    for (let i = 0; i < values.length; i++) sum += (values[i] - old[i]) ** 2;
    old.set(values);
  }
  return sum;
}

/** The overlap over all sparse matrices together, as one budget would see it. */
function overallOverlap(retention: Record<string, Int32Array>, masks: ReadonlyMap<string, Uint8Array>): number {
  const counts = Int32Array.from(Array.from(masks.keys()).flatMap((name) => Array.from(retention[name])));
  const mask = Uint8Array.from(Array.from(masks.values()).flatMap((m) => Array.from(m)));
  return supportOverlap(counts, mask);
}

import { type BlockShape, type ModelSpec, readModelSpec, tensorsOfBlock } from "../arch/index.js";
import { type JobOptions, UsageError } from "../core/index.js";
import {
  artifactVersion,
  type Checkpoint,
  type LocalModelFiles,
  openCheckpoint,
  plainWeights,
  type TensorToWrite,
  type Weights,
} from "../io/index.js";
import { plainTensor } from "../io/internal.js";
import { describeDecoder } from "../model/index.js";
import { fromFloat32 } from "../tensor/index.js";
import { rowsOfShape } from "../tensor/internal.js";
import { writeBesideWeights } from "./besideWeights.js";
import { writePlainCheckpoint } from "./plainCheckpoint.js";

/** Which layers have the same weights, and what these are at first. */
export interface ShareLayersOptions extends JobOptions {
  /**
   * "all": one block for all layers (ALBERT: Lan et al. 2019, arXiv:1909.11942). "sandwich": the first and the last layer have their own,
   * those between them share one (Subformer: Reid, Marrese-Taylor, Matsuo 2021, arXiv:2101.00234). A number: so many neighbours
   * share. A list: for every layer the one whose weights it has, itself or one before it. Default "sandwich".
   */
  layers?: "all" | "sandwich" | number | readonly number[];
  /** What a shared block begins with: the mean of the weights of its layers, or those of the first of them. Default "mean". */
  start?: "mean" | "first";
  /** Replace the finished result of something else. */
  force?: boolean;
}

/** What came of it. */
export interface SharedLayersDirectory {
  output: string;
  /** For every layer, whose weights it has. */
  layers: readonly number[];
  /** Numbers that are stored, before and after. */
  numbers: { before: number; after: number };
}

/**
 * Lets layers of a model share their weights: the directory holds them once, the runtime holds them once in memory, and `finetune` trains
 * them once, with the gradients of all places where they are used. Nothing of the loss is looked at: a model that shares has to be
 * trained afterwards. The result appears whole or not at all.
 * @throws UsageError for layers that cannot share, FormatError, BusyError, StorageError
 */
export async function shareLayersToDirectory(
  source: LocalModelFiles,
  output: string,
  { layers = "sandwich", start = "mean", force, signal, onProgress }: ShareLayersOptions = {},
): Promise<SharedLayersDirectory> {
  const job = { signal, onProgress };
  const checkpoint = await openCheckpoint(source);
  try {
    const { config } = await describeDecoder(checkpoint);
    if (config.blocks.some(({ sharedWith }) => sharedWith !== undefined))
      throw new UsageError(`layers of ${source.location} share their weights already; export it first`);
    const plan = planOf(layers, config.layers);
    const blocks = config.blocks.map(
      (shape, layer): BlockShape => (plan[layer] === layer ? shape : { ...shape, sharedWith: plan[layer] }),
    );
    checkKinds(checkpoint, blocks);
    const weights = await plainWeights(checkpoint);
    const tensors = sharedTensors(config.spec, plan, weights, start);
    const settings = { layers: plan, start };
    const options = { command: "share", force, settings, text: async () => undefined, ...job };
    await writeBesideWeights(source, output, options, (builder) =>
      writePlainCheckpoint(
        builder.directory,
        source,
        { artifact: { rarefy: artifactVersion, blocks } },
        { config: checkpoint.config, tensors },
        job,
      ),
    );
    const count = (all: readonly { shape: readonly number[] }[]) =>
      all.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
    return { output, layers: plan, numbers: { before: count(weights), after: count(tensors) } };
  } finally {
    await checkpoint.close();
  }
}

/** For every layer, whose weights it has. @throws UsageError */
function planOf(layers: NonNullable<ShareLayersOptions["layers"]>, count: number): number[] {
  const all = Array.from({ length: count }, (_, layer) => layer);
  if (layers === "all") return all.map(() => 0);
  if (layers === "sandwich") {
    if (count < 4)
      throw new UsageError(`between the first and the last of ${count} layers there are not two that could share`);
    return all.map((layer) => (layer === 0 || layer === count - 1 ? layer : 1));
  }
  if (typeof layers === "number") {
    if (!(Number.isInteger(layers) && layers >= 2 && layers <= count))
      throw new UsageError(`${layers} neighbours of ${count} layers: give 2 to ${count}`);
    return all.map((layer) => layer - (layer % layers));
  }
  if (layers.length !== count) throw new UsageError(`a list of ${layers.length} for a model of ${count} layers`);
  for (const [layer, other] of layers.entries()) {
    if (Number.isInteger(other) && other >= 0 && other <= layer && layers[other] === other) continue;
    throw new UsageError(
      `layer ${layer} cannot have the weights of ${other}: give itself, or one before it that has its own`,
    );
  }
  if (layers.every((other, layer) => other === layer)) throw new UsageError("a list in which no layer shares");
  return [...layers];
}

/** @throws UsageError for layers that are not of one kind */
function checkKinds({ config, location }: Checkpoint, blocks: readonly BlockShape[]): void {
  try {
    readModelSpec(config, `${location}/config.json`, undefined, blocks);
  } catch (cause) {
    throw new UsageError(`these layers of ${location} cannot share: ${(cause as Error).message}`, { cause });
  }
}

/** Tensors of blocks that have their own or are shared, and all else as it is. */
function sharedTensors(
  { blocks }: ModelSpec,
  plan: readonly number[],
  weights: readonly Weights[],
  start: "mean" | "first",
): TensorToWrite[] {
  const byName = new Map(weights.map((one) => [one.name, one]));
  const members = new Map<string, Weights[]>();
  const left = new Set<string>();
  for (const [layer, first] of plan.entries()) {
    const shared = tensorsOfBlock(blocks[first]);
    const own = tensorsOfBlock(blocks[layer]);
    const names = new Map(shared.map(({ tensor }, t) => [tensor, own[t].tensor]));
    for (const [name, ownName] of names) {
      members.set(name, [...(members.get(name) ?? []), byName.get(ownName)!]);
      if (layer !== first) left.add(ownName);
    }
  }
  return weights.flatMap((one) => {
    if (left.has(one.name)) return [];
    const all = members.get(one.name) ?? [];
    return [all.length < 2 || start === "first" ? plainTensor(one) : meanTensor(one, all)];
  });
}

const pieceEntries = 1 << 20;

function meanTensor({ name, shape, dtype }: Weights, all: readonly Weights[]): TensorToWrite {
  const { rows, cols } = shape.length === 1 ? { rows: shape[0], cols: 1 } : rowsOfShape(shape);
  const together = Math.max(1, Math.floor(pieceEntries / cols));
  return {
    name,
    shape,
    dtype,
    async *bytes() {
      for (let first = 0; first < rows; first += together) {
        const count = Math.min(together, rows - first);
        const sums = new Float64Array(count * cols);
        for (const one of all) for (const [i, value] of (await one.readRows(first, count)).entries()) sums[i] += value;
        yield fromFloat32(
          dtype,
          Float32Array.from(sums, (sum) => sum / all.length),
        );
      }
    },
  };
}

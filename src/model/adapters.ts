import type { LinearSpec, LinearStep, Step } from "../arch/index.js";
import { latentAt, latentSteps } from "../arch/internal.js";
import { UsageError } from "../core/index.js";
import type { Adapter, LoraPair } from "../io/index.js";
import type { Matrix, Region, RowSource } from "../kernels/index.js";
import { weightFormats } from "../pack/index.js";
import { adaptationsOf } from "./adaptations.js";
import { AdapterPairs, type StackPairs } from "./adapterPairs.js";
import { Decoder } from "./decoder.js";
import { denseSource } from "./denseSource.js";
import { padTo4 } from "./footprint.js";
import type { LoadedAdapter, Model } from "./types.js";
import type { BlockWeights } from "./weights.js";

/** Pairs are small, and what they add is smaller. */
const format = "f32";

/**
 * Loads a LoRA adapter beside the weights of a model, for the sequences and passes that name it (`SequenceOptions.adapters`):
 * y = W·x + scale·b·(a·x), in one more pair of narrow products for every matrix that has one. Rows of one pass may have different
 * adapters (S-LoRA, arXiv 2311.03285): the weights are read once for all of them.
 * @returns what the model must outlive; disposing of it gives the adapter's memory back
 * @throws ProblemsError when the adapter is for another model, UsageError for what can only be merged
 */
export async function loadAdapter(model: Model, adapter: Adapter): Promise<LoadedAdapter> {
  const { config, backend, loaded } = decoderOf(model);
  if (adapter.kind !== "lora") {
    throw new UsageError("factors of IA³ cost nothing once they are in the weights: merge the adapter (rarefy merge)");
  }
  if (loaded.offload !== undefined) {
    throw new UsageError(
      "an adapter beside a model that is larger than memory: merge it first (rarefy merge), then rarefy offload",
    );
  }
  const pairs = new Map<LinearSpec, LoraPair>();
  for (const [map, adaptation] of adaptationsOf(config.spec, adapter)) {
    if (adaptation.kind === "lora") pairs.set(map, adaptation.pair);
  }
  const weightBytes = [...pairs.values()].reduce((sum, { rank, rows, cols }) => {
    const { byteLength } = weightFormats[format];
    return sum + byteLength(padTo4(rank), cols) + byteLength(rows, padTo4(rank));
  }, 0);
  const region = backend.openRegion({ weightBytes });
  try {
    const blocks: ReadonlyMap<Step, StackPairs>[] = [];
    for (const [b, { steps }] of config.spec.blocks.entries()) {
      blocks.push(await pairsOfBlock(steps, loaded.blocks[b], region, pairs));
    }
    if (pairs.size > 0) {
      const [{ weight }] = pairs.keys();
      throw new UsageError(`${weight.tensor} is of an expert or of latents: merge the adapter (rarefy merge)`);
    }
    return new AdapterPairs(model, region, blocks, weightBytes);
  } catch (error) {
    region[Symbol.dispose]();
    throw error;
  }
}

/**
 * A model whose passes run with an adapter where they name none. The weights are those of `model`, which goes on as it is: any
 * number of adapters can stand beside each other, and those of several calls add up. A cache belongs to the model whose tokens it
 * holds.
 * @returns a model that needs `model` for as long as it lives; disposing of it gives the adapter's memory back
 * @throws as `loadAdapter`
 */
export async function withAdapter(model: Model, adapter: Adapter): Promise<Model> {
  const { config, backend, loaded, weights, thresholds, adapters = [] } = decoderOf(model);
  const pairs = (await loadAdapter(model, adapter)) as AdapterPairs;
  const { perToken, loaded: all } = loaded.bytes;
  const bytes = { perToken: perToken + pairs.byteLength, loaded: all + pairs.byteLength };
  return new Decoder(config, backend, weights, { ...loaded, region: pairs.region, bytes }, thresholds, [
    ...adapters,
    pairs,
  ]);
}

function decoderOf(model: Model): Decoder {
  if (!(model instanceof Decoder)) throw new UsageError("a model that loadModel has made is expected");
  return model;
}

/** The pairs of a block by step; those that were placed are taken out of `pairs`. */
async function pairsOfBlock(
  steps: readonly Step[],
  weights: BlockWeights,
  region: Region,
  pairs: Map<LinearSpec, LoraPair>,
): Promise<ReadonlyMap<Step, StackPairs>> {
  const placed = new Map<Step, StackPairs>();
  for (let s = 0; s < steps.length; s++) {
    if (latentAt(steps, s) !== undefined) s += latentSteps - 1;
    const step = steps[s];
    const runs = step.do === "linear" && weights.stacks.has(step);
    if (!runs || !step.maps.some(({ map }) => pairs.has(map))) continue;
    placed.set(step, await pairsOfStep(step, region, pairs));
    for (const { map } of step.maps) pairs.delete(map);
  }
  return placed;
}

async function pairsOfStep(
  { maps }: LinearStep,
  region: Region,
  pairs: ReadonlyMap<LinearSpec, LoraPair>,
): Promise<StackPairs> {
  const parts: StackPairs["pairs"][number][] = [];
  const rights: RowSource[] = [];
  let [rowStart, rankStart] = [0, 0];
  for (const { map } of maps) {
    const pair = pairs.get(map);
    if (pair !== undefined) {
      const { a, b, rank, rows, cols, scale } = pair;
      const padded = padTo4(rank);
      // Products are made in fours: what is missing is zeros.
      const right = new Float32Array(padded * cols);
      right.set(a);
      const left = new Float32Array(rows * padded);
      for (let r = 0; r < rows; r++) for (let k = 0; k < rank; k++) left[r * padded + k] = scale * b[r * rank + k];
      rights.push(denseSource(`${map.weight.tensor} lora_A`, padded, cols, right));
      const matrix = await load(region, [denseSource(`${map.weight.tensor} lora_B`, rows, padded, left)]);
      parts.push({ rowStart, rows, left: matrix, rankStart });
      rankStart += padded;
    }
    rowStart += map.rows;
  }
  return { pairs: parts, right: await load(region, rights) };
}

const load = (region: Region, sources: readonly RowSource[]): Promise<Matrix> => region.loadMatrix(sources, format, {});

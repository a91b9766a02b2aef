import { type LinearSpec, type LinearStep, linearsOf, type Step } from "../arch/index.js";
import { latentAt, latentSteps } from "../arch/internal.js";
import { UsageError } from "../core/index.js";
import type { Adapter, PairMixture, RescalingMixture } from "../io/index.js";
import type { Region } from "../kernels/index.js";
import { type Adaptation, adaptationsOf } from "./adaptations.js";
import { PlacedAdapter, type StepAdaptation } from "./adapterPairs.js";
import { Decoder } from "./decoder.js";
import { ExpertGates, gateWidth } from "./expertGates.js";
import { factorMixtureBytes, loadFactorMixture } from "./factorMixture.js";
import { isPairs, loadPairs, pairBytes } from "./loadPairs.js";
import type { LoadedAdapter, Model } from "./types.js";
import type { BlockWeights } from "./weights.js";

/**
 * Loads an adapter beside the weights of a model, for the sequences and passes that name it (`SequenceOptions.adapters`). LoRA:
 * y = W·x + scale·b·(a·x), in one more pair of narrow products for every matrix that has one. Rows of one pass may have different
 * adapters (S-LoRA, arXiv 2311.03285): the weights are read once for all of them. Mixtures (MoLoRA and MoV, arXiv 2309.05444): the
 * pairs of all experts are one pair, whose inner columns are multiplied by the gates of a token, and factors are a product of those gates.
 * @returns what the model must outlive; disposing of it gives the adapter's memory back
 * @throws ProblemsError when the adapter is for another model, UsageError for what can only be merged, and for mixtures beside what none
 * can stand beside
 */
export async function loadAdapter(model: Model, adapter: Adapter): Promise<LoadedAdapter> {
  const { config, backend, loaded } = decoderOf(model);
  const isMixture = adapter.kind === "molora" || adapter.kind === "mov";
  if (adapter.kind === "ia3") {
    throw new UsageError("factors of IA³ cost nothing once they are in the weights: merge the adapter (rarefy merge)");
  }
  if (loaded.offload !== undefined) {
    throw new UsageError(
      isMixture
        ? "a mixture of adapters beside a model that is larger than memory cannot be run"
        : "an adapter beside a model that is larger than memory: merge it first (rarefy merge), then rarefy offload",
    );
  }
  const adaptations = adaptationsOf(config.spec, adapter);
  const weightBytes = [...adaptations.values()].reduce((sum, one) => sum + bytesOf(one), 0);
  const router = routerOf(adapter);
  const region = backend.openRegion({ weightBytes });
  let gates: ExpertGates | undefined;
  try {
    if (router !== undefined) gates = ExpertGates.load(backend, router.experts, router.topK);
    const blocks: ReadonlyMap<Step, StepAdaptation>[] = [];
    for (const [b, { steps }] of config.spec.blocks.entries()) {
      blocks.push(await placeInBlock(steps, loaded.blocks[b], { region, gates, adaptations }));
    }
    const left = config.spec.blocks.flatMap(linearsOf).find((map) => adaptations.has(map));
    if (left !== undefined) {
      const what = `${left.weight.tensor} is of an expert or of latents`;
      throw new UsageError(
        isMixture ? `${what}, which no mixture stands beside` : `${what}: merge the adapter (rarefy merge)`,
      );
    }
    return new PlacedAdapter(model, regionWith(region, gates), blocks, weightBytes + (gates?.byteLength ?? 0));
  } catch (error) {
    regionWith(region, gates)[Symbol.dispose]();
    throw error;
  }
}

/** What the routers of all modules of a mixture have in common. @throws UsageError where they differ */
function routerOf(adapter: Adapter): { experts: number; topK?: number } | undefined {
  if (adapter.kind !== "molora" && adapter.kind !== "mov") return undefined;
  const said = ({ experts, topK, ...own }: PairMixture | RescalingMixture) =>
    `${experts} experts${"rank" in own ? ` of rank ${own.rank}` : ""}, of which ${topK ?? "all"} count`;
  const [first] = adapter.modules.values();
  for (const [name, one] of adapter.modules) {
    if (said(one) !== said(first)) throw new UsageError(`${name} has ${said(one)}; another matrix has ${said(first)}`);
  }
  return first;
}

function bytesOf(adaptation: Adaptation): number {
  if (adaptation.kind === "ia3") return 0;
  if (adaptation.kind !== "mov") return pairBytes(adaptation);
  const { rescalings } = adaptation;
  return factorMixtureBytes(rescalings, gateWidth(rescalings.experts));
}

/** A region that something else of the backend's is given back with. */
function regionWith(region: Region, other: Disposable | undefined): Region {
  if (other === undefined) return region;
  return {
    loadMatrix: (...given) => region.loadMatrix(...given),
    loadExperts: (...given) => region.loadExperts(...given),
    loadVector: (...given) => region.loadVector(...given),
    loadRope: (...given) => region.loadRope(...given),
    [Symbol.dispose]() {
      region[Symbol.dispose]();
      other[Symbol.dispose]();
    },
  };
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
  const pairs = (await loadAdapter(model, adapter)) as PlacedAdapter;
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

/** Where what is loaded comes from and goes. */
interface Placing {
  region: Region;
  gates: ExpertGates | undefined;
  /** Those that were placed are taken out. */
  adaptations: Map<LinearSpec, Adaptation>;
}

async function placeInBlock(
  steps: readonly Step[],
  weights: BlockWeights,
  placing: Placing,
): Promise<ReadonlyMap<Step, StepAdaptation>> {
  const { adaptations } = placing;
  const placed = new Map<Step, StepAdaptation>();
  for (let s = 0; s < steps.length; s++) {
    if (latentAt(steps, s) !== undefined) s += latentSteps - 1;
    const step = steps[s];
    const runs = step.do === "linear" && weights.stacks.has(step);
    if (!runs || !step.maps.some(({ map }) => adaptations.has(map))) continue;
    placed.set(step, await placeInStep(step, placing));
    for (const { map } of step.maps) adaptations.delete(map);
  }
  return placed;
}

async function placeInStep(step: LinearStep, { region, gates, adaptations }: Placing): Promise<StepAdaptation> {
  const pairs: Parameters<typeof loadPairs>[2][number][] = [];
  const outputs: StepAdaptation["outputs"][number][] = [];
  let inputs: StepAdaptation["inputs"];
  let rowStart = 0;
  for (const { map } of step.maps) {
    const adaptation = adaptations.get(map);
    const name = map.weight.tensor;
    if (adaptation !== undefined && isPairs(adaptation)) pairs.push({ ...adaptation, rowStart, name });
    if (adaptation?.kind === "mov") {
      const { rescalings } = adaptation;
      const mixture = await loadFactorMixture(
        region,
        gates!,
        rescalings,
        rescalings.of === "inputs" ? 0 : rowStart,
        name,
      );
      if (rescalings.of === "inputs") inputs = onlyOne(step, inputs, mixture, name);
      else outputs.push(addable(step, mixture, name));
    }
    rowStart += map.rows;
  }
  return {
    ...(pairs.length > 0 && { pairs: await loadPairs(region, gates, pairs) }),
    ...(inputs && { inputs }),
    outputs,
  };
}

/** @throws UsageError where several matrices share the input */
function onlyOne<T>({ maps }: LinearStep, before: T | undefined, mixture: T, name: string): T {
  if (before === undefined && maps.length === 1) return mixture;
  throw new UsageError(sharedInput(name));
}

/** @throws UsageError where outputs are added to what is there already */
function addable<T>({ add }: LinearStep, mixture: T, name: string): T {
  if (!add) return mixture;
  throw new UsageError(addedOutput(name));
}

/** Why inputs of a matrix cannot be multiplied. */
export const sharedInput = (tensor: string): string =>
  `${tensor} shares its input with other matrices, which factors of that input would change as well`;

/** Why outputs of a matrix cannot be multiplied. */
export const addedOutput = (tensor: string): string =>
  `outputs of ${tensor} are added to the residual stream at once, so that nothing can be multiplied; name its module in inputsOf`;

import { findStep } from "../../arch/index.js";
import type { ExpertStatistics } from "../../compress/index.js";
import { type JobOptions, Stage, UsageError } from "../../core/index.js";
import type { Activation } from "../../kernels/index.js";
import type { Model, TappedSlots } from "../../model/index.js";

/** Which tokens are run, and what is looked at. */
export interface MeasureExpertsOptions extends JobOptions {
  /** Tokens of a window; each begins at position 0. */
  window: number;
  /** At most; default all whole windows of the text. */
  maxWindows?: number;
  /** Also the norms of what experts give. */
  outputs?: boolean;
  /** Weights of the routers, f32 [experts, hiddenSize] of every layer that has one: also how alike their logits are. */
  routers?: readonly (Float32Array | undefined)[];
}

/** Growing statistics of one layer. */
class LayerStatistics implements ExpertStatistics {
  tokens = 0;
  readonly counts: Float64Array;
  readonly weights: Float64Array;
  readonly saliencies: Float64Array;
  readonly logitProducts: Float64Array;

  constructor(readonly experts: number) {
    this.counts = new Float64Array(experts);
    this.weights = new Float64Array(experts);
    this.saliencies = new Float64Array(experts);
    this.logitProducts = new Float64Array(experts * experts);
  }

  /** @param outputs f32 [slots, width], or empty */
  add({ experts, weights }: TappedSlots, outputs: Float32Array, width: number): void {
    for (const [slot, expert] of experts.entries()) {
      this.counts[expert]++;
      this.weights[expert] += weights[slot];
      if (outputs.length === 0) continue;
      let squares = 0;
      for (let i = slot * width; i < (slot + 1) * width; i++) squares += outputs[i] ** 2;
      this.saliencies[expert] += weights[slot] * Math.sqrt(squares);
    }
  }

  /** @param x f32 [rows, width] that the router sees @param router f32 [experts, width] */
  addLogits(x: Float32Array, router: Float32Array, width: number): void {
    const { experts, logitProducts } = this;
    const logits = new Float64Array(experts);
    for (let at = 0; at < x.length; at += width) {
      for (let e = 0; e < experts; e++) {
        let sum = 0;
        for (let i = 0; i < width; i++) sum += x[at + i] * router[e * width + i];
        logits[e] = sum;
      }
      for (let a = 0; a < experts; a++)
        for (let b = 0; b < experts; b++) logitProducts[a * experts + b] += logits[a] * logits[b];
    }
  }
}

/**
 * What windows of a text do to the experts of every layer of a dense model.
 * @returns one per layer; undefined for layers without experts
 * @throws UsageError for a model without experts, or a text shorter than a window
 */
export async function measureExperts(
  model: Model,
  tokens: Uint32Array,
  {
    window,
    maxWindows = Number.POSITIVE_INFINITY,
    outputs = false,
    routers,
    signal,
    onProgress,
  }: MeasureExpertsOptions,
): Promise<(ExpertStatistics | undefined)[]> {
  if (model.damage !== undefined) throw model.damage;
  const { spec } = model.config;
  const mixtures = spec.blocks.map((block) => findStep(block, "mixture"));
  const site = mixtures.find((step) => step !== undefined)?.site;
  if (site === undefined) throw new UsageError(`a ${model.config.modelType} model has no experts`);
  const windows = Math.min(Math.floor(tokens.length / window), maxWindows);
  if (windows < 1) throw new UsageError(`a text of ${tokens.length} tokens has no window of ${window}`);
  const layers = mixtures.map((step) => step && new LayerStatistics(step.experts.length));
  const entering = routers && mixtures.find((step) => step !== undefined)?.experts[0].steps[0];
  const input = entering?.do === "linear" ? entering.site?.id : undefined;
  const tap = {
    sites: [site.id, ...(input === undefined ? [] : [input])],
    async onActivation(layer: number, id: string, activation: Activation, slots?: TappedSlots) {
      if (id === input) {
        // A shared expert beside the others shows the same rows.
        const router = slots && routers?.[layer];
        if (router) layers[layer]!.addLogits(await model.backend.read(activation), router, activation.cols);
        return;
      }
      const values = outputs ? await model.backend.read(activation) : new Float32Array(0);
      layers[layer]!.add(slots!, values, activation.cols);
    },
  };
  const stage = new Stage("measure experts", windows, "windows", onProgress);
  using cache = model.createCache(window, { allowBeyondTraining: true });
  for (let w = 0; w < windows; w++) {
    signal?.throwIfAborted();
    const some = tokens.subarray(w * window, (w + 1) * window);
    await model.forward(some, cache, 0, { logits: "none", tap, thresholds: "dense" });
    for (const layer of layers) if (layer !== undefined) layer.tokens += window;
    stage.advance(1);
  }
  return layers.map(
    (layer) =>
      layer && {
        ...layer,
        saliencies: outputs ? layer.saliencies : undefined,
        logitProducts: routers && layer.logitProducts,
      },
  );
}

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
}

/** Growing statistics of one layer. */
class LayerStatistics implements ExpertStatistics {
  tokens = 0;
  readonly counts: Float64Array;
  readonly weights: Float64Array;
  readonly saliencies: Float64Array;

  constructor(experts: number) {
    this.counts = new Float64Array(experts);
    this.weights = new Float64Array(experts);
    this.saliencies = new Float64Array(experts);
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
}

/**
 * What windows of a text do to the experts of every layer of a dense model.
 * @returns one per layer; undefined for layers without experts
 * @throws UsageError for a model without experts, or a text shorter than a window
 */
export async function measureExperts(
  model: Model,
  tokens: Uint32Array,
  { window, maxWindows = Number.POSITIVE_INFINITY, outputs = false, signal, onProgress }: MeasureExpertsOptions,
): Promise<(ExpertStatistics | undefined)[]> {
  if (model.damage !== undefined) throw model.damage;
  const { spec } = model.config;
  const mixtures = spec.blocks.map((block) => findStep(block, "mixture"));
  const site = mixtures.find((step) => step !== undefined)?.site;
  if (site === undefined) throw new UsageError(`a ${model.config.modelType} model has no experts`);
  const windows = Math.min(Math.floor(tokens.length / window), maxWindows);
  if (windows < 1) throw new UsageError(`a text of ${tokens.length} tokens has no window of ${window}`);
  const layers = mixtures.map((step) => step && new LayerStatistics(step.experts.length));
  const tap = {
    sites: [site.id],
    async onActivation(layer: number, _site: string, activation: Activation, slots?: TappedSlots) {
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
  return layers.map((layer) => layer && (outputs ? layer : { ...layer, saliencies: undefined }));
}

import * as z from "zod/mini";
import { findStep, type ModelConfig } from "../arch/index.js";
import { UsageError } from "../core/index.js";
import { parseSchema } from "../core/internal.js";
import {
  cosine,
  type DistillationId,
  type EngineDevice,
  type MatchingOptions,
  type MiniLlmOptions,
  matchingSchema,
  miniLlmSchema,
  type OptimizerOptions,
  type TrainedMixture,
  trainedMixture,
  trainMethods,
} from "../train/index.js";

/** How a language model is trained. */
export interface TrainingSettings {
  /** Optimiser steps. */
  steps: number;
  /** Sequences of a step. */
  batch: number;
  /** Tokens of a sequence. */
  window: number;
  /** Peak learning rate of AdamW. */
  rate: number;
  /** Rate at the end of the cosine; default a tenth of the peak. */
  finalRate?: number;
  /** Steps of linear warm-up. */
  warmup: number;
  /** Decoupled decay of linear weights. */
  weightDecay: number;
  /** Longest gradient. */
  clip: number;
  /** Decides the first weights and the order of windows. */
  seed: number;
  /** Where gradients are computed. */
  device: EngineDevice;
  /** How weights are made sparse: an id of `trainMethods`. */
  method: string;
  /** Options of the method, as its schema has them. */
  methodOption: Record<string, unknown>;
  /** How tokens find their experts: one of `routings`. Default: as the model was trained before, else as it is described. */
  router?: string;
  /** Options of the router. */
  routerOption: Record<string, unknown>;
  /** Q-Sparse: share of the largest inputs of a token that every linear map sees. Default: all. */
  inputDensity?: number;
  /** Dynamic context pruning: layers learn which earlier positions are no longer needed; options as `contextPruningSchema` has them. */
  contextPruning?: Record<string, unknown>;
  /** Adaptive gating: routers learn which tokens need which layers; as `parseLayerGates` reads it. */
  layerGates?: string;
  /** Weight of learning from a teacher's predictions; 1 − share is that of the text. Default: no teacher. */
  distil?: number;
  /** How far student and teacher are apart. Default "kl". */
  distilLoss?: DistillationId;
  /** Options of "minillm", as `miniLlmSchema` has them. */
  miniLlm?: Record<string, unknown>;
  /** Have blocks of the student become like those of its teacher: options as `matchingSchema` has them. Default: they are not looked at. */
  match?: Record<string, unknown>;
  /** Divides the logits of teacher and student. Default 1. */
  temperature?: number;
}

const common = {
  ...{ batch: 4, window: 128, weightDecay: 0.1, clip: 1, seed: 0 },
  device: "wasm",
  ...{ method: "dense", methodOption: {}, routerOption: {} },
} as const satisfies Partial<TrainingSettings>;

/** What holds where nothing else is asked for: for going on from weights, and for beginning at random ones. */
export const trainingDefaults = {
  weights: { ...common, rate: 1e-4, steps: 1000, warmup: 50 },
  random: { ...common, rate: 1e-3, steps: 2000, warmup: 100 },
} satisfies Record<string, TrainingSettings>;

const least = (minimum: number) => z.int().check(z.minimum(minimum));
const positive = z.number().check(z.positive());
const nonNegative = z.number().check(z.nonnegative());

/** Numbers of `TrainingSettings` that training can be done with. */
const numbers = z.object({
  steps: least(1),
  batch: least(1),
  window: least(2),
  rate: positive,
  finalRate: z.optional(nonNegative),
  warmup: least(0),
  weightDecay: nonNegative,
  clip: positive,
  seed: least(0),
  saveEvery: least(1),
  threads: z.optional(z.int().check(z.minimum(1), z.maximum(64))),
  device: z.enum(["wasm", "webgpu"]),
  inputDensity: z.optional(z.number().check(z.positive(), z.maximum(1))),
  distil: z.optional(z.number().check(z.minimum(0), z.maximum(1))),
  temperature: z.optional(positive),
});

/** @throws UsageError that names the setting */
export function checkNumbers(settings: TrainingSettings & { saveEvery: number }): void {
  const parsed = parseSchema(numbers, settings);
  if (parsed.success) return;
  const [{ path, message }] = parsed.error.issues;
  throw new UsageError(`training settings: ${path.join(".")}: ${message}`);
}

/** What decides how tokens find experts; the tokens of a batch are counted in the balance. */
export type RouterSettings = Pick<TrainingSettings, "router" | "routerOption" | "batch" | "window">;

/** AdamW with a cosine, as language models are trained. @param decays linear weights */
export function optimizerOf(settings: TrainingSettings, decays: (name: string) => boolean): OptimizerOptions {
  const { rate, finalRate = rate / 10, warmup, steps, weightDecay, clip } = settings;
  return {
    rate: cosine({ peak: rate, final: finalRate, warmup, steps }),
    beta2: 0.95,
    weightDecay,
    clip,
    decays,
  };
}

/** The method with its options checked. @throws UsageError for a method that is none, or options that it does not have */
export async function methodOf({ method: id, methodOption }: Pick<TrainingSettings, "method" | "methodOption">) {
  if (!Object.hasOwn(trainMethods, id)) {
    throw new UsageError(`there is no method ${id}; there are ${Object.keys(trainMethods).join(", ")}`);
  }
  const { method } = await trainMethods[id]();
  const parsed = parseSchema(method.options, methodOption);
  if (!parsed.success) {
    const [first] = parsed.error.issues;
    const field = first.path.length === 0 ? "" : `${first.path.join(".")}: `;
    throw new UsageError(
      `\`methodOption\` for ${id}: ${field}${first.message}; rarefy presets --methods lists what there is`,
    );
  }
  return { method, settings: parsed.data };
}

/** @throws UsageError for options that matching does not have */
export function matchingOptions(match: Record<string, unknown>): MatchingOptions {
  const parsed = parseSchema(matchingSchema, match);
  if (parsed.success) return parsed.data;
  const [{ path, message }] = parsed.error.issues;
  throw new UsageError(`\`match\`: ${[...path.map(String), message].join(": ")}`);
}

/** @throws UsageError for options that MiniLLM does not have, and windows with no room for a beginning */
export function miniLlmOptions({ miniLlm = {}, window }: Pick<TrainingSettings, "miniLlm" | "window">): MiniLlmOptions {
  const parsed = parseSchema(miniLlmSchema, miniLlm);
  if (!parsed.success) {
    const [{ path, message }] = parsed.error.issues;
    throw new UsageError(`\`miniLlm\`: ${[...path.map(String), message].join(": ")}`);
  }
  const { length } = parsed.data;
  if (length < window) return parsed.data;
  throw new UsageError(`${length} tokens are to be written in windows of ${window}, which leaves no beginning`);
}

/**
 * The experts of the model and how tokens find them: as asked for, as the model was trained before, or as it is described.
 * @param trained how its routers were trained, if they were
 * @throws UsageError for a router where there are no experts
 */
export function mixtureOf(
  config: ModelConfig,
  { router, routerOption, batch, window }: RouterSettings,
  trained?: string,
): TrainedMixture | undefined {
  const given = router !== undefined || Object.keys(routerOption).length > 0;
  const hasExperts = config.spec.blocks.some((block) => findStep(block, "mixture") !== undefined);
  if (given && !hasExperts) {
    throw new UsageError(
      `a ${config.modelType} model has no experts to route to; give a config.json of model_type mixtral`,
    );
  }
  return trainedMixture(config.spec, router ?? trained ?? "own", routerOption, batch * window);
}

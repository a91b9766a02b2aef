import * as z from "zod/mini";
import type { ModelConfig } from "../../arch/index.js";
import { withContextPruning } from "../../arch/internal.js";
import { UsageError } from "../../core/index.js";
import { parseSchema } from "../../core/internal.js";
import type { Batch, BatchControl } from "../objective.js";
import { randomFor } from "../seeds.js";
import type { FloatArray } from "../values.js";
import { alphaSigmoidTable } from "./alphaSigmoid.js";
import { contextLeftName, contextWeightName, sigmoidName, sigmoidPerUnitName } from "./contextNames.js";
import { initialWeights, type ModelParameter } from "./parameters.js";

/** Options of dynamic context pruning; see docs/training.md. */
export const contextPruningSchema = z.strictObject({
  rank: z
    .optional(z.int().check(z.minimum(4), z.maximum(4096), z.multipleOf(4)))
    .check(z.describe("columns of interaction queries and keys: those of the model, else 64")),
  weight: z
    ._default(z.number().check(z.gte(0)), 0.3)
    .check(z.describe("weight of the mean share of the context that is left, in the loss")),
  bias: z
    ._default(z.number(), 2)
    .check(z.describe("of a new model: what interactions begin with; above 0, so that all is kept")),
  from: z._default(z.number().check(z.gte(1)), 1).check(z.describe("α at the start")),
  to: z._default(z.number().check(z.gte(1)), 8).check(z.describe("α at the end of its rise")),
  until: z
    ._default(z.number().check(z.positive(), z.maximum(1)), 0.8)
    .check(z.describe("share of the steps in which α rises, along a cosine")),
});

/** Settings of a training, all of them given but the rank. */
export type ContextPruningSettings = z.infer<typeof contextPruningSchema>;

/** @throws UsageError for options that there are not */
export function contextPruningSettings(options: unknown): ContextPruningSettings {
  const parsed = parseSchema(contextPruningSchema, options);
  if (parsed.success) return parsed.data;
  const [{ path, message }] = parsed.error.issues;
  throw new UsageError(`\`contextPruning\`: ${[...path.map(String), message].join(": ")}`);
}

/**
 * The same model with layers that prune their context.
 * @throws UsageError where they do so with another rank; FormatError where they cannot
 */
export function prunableConfig(config: ModelConfig, { rank }: ContextPruningSettings): ModelConfig {
  const own = config.blocks.find(({ contextRank }) => contextRank !== undefined)?.contextRank;
  if (rank !== undefined && own !== undefined && rank !== own)
    throw new UsageError(`\`contextPruning\` rank=${rank}: the model prunes its context with a rank of ${own} already`);
  return own === undefined ? withContextPruning(config, rank ?? 64) : config;
}

/** What begins with random numbers, and what with the bias, of tensors that a checkpoint has not. */
export function initialInteractions(
  parameters: readonly ModelParameter[],
  { bias }: ContextPruningSettings,
  seed: number,
): Map<string, FloatArray> {
  const random = randomFor(seed, "context");
  const begun = parameters.map((parameter): [string, FloatArray] => {
    if (parameter.start === "zeros") return [parameter.name, new Float32Array(parameter.shape[0]).fill(bias)];
    // Interactions are then about as wide as the bias: some positions are dropped from the first step on, which is what is learnt from.
    return [...initialWeights([parameter], random, 1 / Math.sqrt(parameter.shape[1]))][0];
  });
  return new Map(begun);
}

/** The same with a bias above all that decides: no token is dropped, and none is let past a layer. */
export function nothingDropped(
  parameters: readonly ModelParameter[],
  begun: ReadonlyMap<string, FloatArray>,
): Map<string, FloatArray> {
  const whole = new Map(begun);
  for (const { name, start } of parameters) if (start === "zeros") whole.set(name, Float32Array.of(1e9));
  return whole;
}

/** Entries of the table from 0 on. */
const entries = 2049;

/** α of a step: from the first to the last along half a cosine, and then the last. */
export function alphaAt({ from, to, until }: ContextPruningSettings, step: number, steps: number): number {
  const along = Math.min(1, step / Math.max(1, until * steps));
  return from + ((to - from) * (1 - Math.cos(Math.PI * along))) / 2;
}

const scalar = (value: number) => ({ shape: [], values: Float32Array.of(value) });

/** Raises α step by step, and says how much of the context is left. */
export function contextControl(settings: ContextPruningSettings, steps: number): BatchControl {
  const state = { step: 0, left: 1 };
  return {
    state,
    arrays(): Batch {
      const { values, perUnit } = alphaSigmoidTable(alphaAt(settings, state.step, steps), entries);
      return {
        [sigmoidName]: { shape: [entries], values },
        [sigmoidPerUnitName]: scalar(perUnit),
        [contextWeightName]: scalar(settings.weight),
      };
    },
    // What is measured sees what the runtime keeps.
    evaluationArrays: () => ({}),
    observe(measured) {
      state.step++;
      state.left = measured.get(contextLeftName)![0];
    },
    metrics: () => ({ contextLeft: state.left, alpha: alphaAt(settings, Math.max(0, state.step - 1), steps) }),
  };
}

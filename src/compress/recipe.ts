import * as z from "zod";
import { checkSchema } from "../core/index.js";
import { patternSchema } from "./pattern.js";

/**
 * What is to be done to a model, in stages, each on the tensors its patterns select. A recipe is data from a file: it
 * names methods, tensors and numbers, never paths or code. Texts are given beside it.
 */
const globs = z.array(z.string().min(1).max(256)).max(64);
const methodName = z.string().min(1).max(64);
const methodOptions = z.record(z.string(), z.unknown()).default({});
/** All projections of all blocks; embeddings, norms and the head are left alone. */
const selection = { targets: globs.default(["**.layers.**_proj.weight"]), ignore: globs.default([]) };

const pruneStage = z.strictObject({
  type: z.literal("prune"),
  method: methodName,
  pattern: patternSchema,
  options: methodOptions,
  /** Neurons and heads: make matrices smaller (default) or leave zeros. */
  shrink: z.boolean().default(true),
  /** Neurons: how many stay is rounded up to a multiple of this; kernels take 32 at a time. */
  multipleOf: z.number().int().min(1).max(1024).default(32),
  ...selection,
});

const quantizeStage = z.strictObject({
  type: z.literal("quantize"),
  method: methodName,
  options: methodOptions,
  ...selection,
});

/** Moves outliers from inputs into weights, exactly; for a quantise stage that rounds inputs too. */
const scaleStage = z.strictObject({
  type: z.literal("scale"),
  method: methodName,
  options: methodOptions,
  ...selection,
});

const lowRankStage = z
  .strictObject({
    type: z.literal("lowRank"),
    method: methodName,
    options: methodOptions,
    /** The same rank everywhere … */
    rank: z.number().int().min(1).max(65_536).optional(),
    /** … or the share of the weights' numbers that the factors may hold … */
    keepRatio: z.number().gt(0).max(1).optional(),
    /** … of each matrix, or of a block with the ranks shared out by what they explain. */
    shareWithinBlock: z.boolean().default(false),
    /** Ranks by ratio are multiples of this; only multiples of 4 can be run. */
    align: z.number().int().min(1).max(256).default(4),
    /** What the factors leave, pruned and added as a sparse matrix. */
    residual: z.strictObject({ method: methodName, pattern: patternSchema, options: methodOptions }).optional(),
    ...selection,
  })
  .refine((stage) => (stage.rank === undefined) !== (stage.keepRatio === undefined), "give either rank or keepRatio");

const poolHeadsStage = z.strictObject({
  type: z.literal("poolHeads"),
  /** Key and value heads that remain. */
  kvHeads: z.number().int().min(1).max(65_536),
});

/** Whole blocks, the first thing a recipe does: what is left is another, shallower model. */
const dropLayersStage = z.strictObject({
  type: z.literal("dropLayers"),
  /** influence: the blocks whose output points most the way of their input (ShortGPT); last: those at the end. */
  method: z.enum(["influence", "last"]).default("influence"),
  /** Blocks to drop. */
  count: z.number().int().min(1).max(4095),
});

const recipeSchema = z.strictObject({
  version: z.literal(1),
  title: z.string().max(200).optional(),
  seed: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).default(0),
  calibration: z
    .strictObject({
      windows: z.number().int().min(1).max(65_536).default(64),
      /** Tokens of a window. */
      window: z.number().int().min(4).max(1_048_576).default(512),
      /** Which windows of the text: the first ones, or ones that the seed draws. */
      order: z.enum(["first", "random"]).default("first"),
      /** Measure what the stages do to the outputs of matrices, also where the method would not need it. */
      measureError: z.boolean().default(true),
    })
    .prefault({}),
  stages: z
    .array(
      z.discriminatedUnion("type", [
        dropLayersStage,
        pruneStage,
        quantizeStage,
        scaleStage,
        lowRankStage,
        poolHeadsStage,
      ]),
    )
    .min(1)
    .max(16),
});

/** A recipe with all defaults filled in. */
export type Recipe = z.output<typeof recipeSchema>;
/** A recipe as it is written: what has a default may be left out. */
export type RecipeInput = z.input<typeof recipeSchema>;
/** One stage of a recipe, with its defaults: prune, quantize, scale, lowRank and the others. */
export type RecipeStage = Recipe["stages"][number];

/**
 * @param raw the parsed JSON or YAML text
 * @param file for messages
 * @throws FormatError
 */
export function parseRecipe(raw: unknown, file: string): Recipe {
  return checkSchema(recipeSchema, raw, file);
}

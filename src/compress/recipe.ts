import * as z from "zod/mini";
import { checkSchema } from "../core/internal.js";
import { patternSchema } from "./pattern.js";

/**
 * What is to be done to a model, in stages, each on the tensors its patterns select. A recipe is data from a file: it
 * names methods, tensors and numbers, never paths or code. Texts are given beside it.
 */
const globs = z.array(z.string().check(z.minLength(1), z.maxLength(256))).check(z.maxLength(64));
const methodName = z.string().check(z.minLength(1), z.maxLength(64));
const methodOptions = z._default(z.record(z.string(), z.unknown()), {});
/** All projections of all blocks; embeddings, norms and the head are left alone. */
const selection = { targets: z._default(globs, ["**.layers.**_proj.weight"]), ignore: z._default(globs, []) };

const pruneStage = z.strictObject({
  type: z.literal("prune"),
  method: methodName,
  pattern: patternSchema,
  options: methodOptions,
  /** Neurons and heads: make matrices smaller (default) or leave zeros. */
  shrink: z._default(z.boolean(), true),
  /** Neurons: how many stay is rounded up to a multiple of this; kernels take 32 at a time. */
  multipleOf: z._default(z.int().check(z.gte(1), z.lte(1024)), 32),
  /** Neurons and heads by gradients: the share grows linearly over so many steps, importances computed anew before each. */
  steps: z.optional(z.int().check(z.gte(1), z.lte(1024))),
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
    rank: z.optional(z.int().check(z.gte(1), z.lte(65_536))),
    /** … or the share of the weights' numbers that the factors may hold … */
    keepRatio: z.optional(z.number().check(z.gt(0), z.lte(1))),
    /** … of each matrix, or of a block with the ranks shared out by what they explain. */
    shareWithinBlock: z._default(z.boolean(), false),
    /** Ranks by ratio are multiples of this; only multiples of 4 can be run. */
    align: z._default(z.int().check(z.gte(1), z.lte(256)), 4),
    /** What the factors leave, pruned and added as a sparse matrix. */
    residual: z.optional(z.strictObject({ method: methodName, pattern: patternSchema, options: methodOptions })),
    ...selection,
  })
  .check(
    z.refine(
      (stage) => (stage.rank === undefined) !== (stage.keepRatio === undefined),
      "give either rank or keepRatio",
    ),
  );

/** How small factors are to be: one of the three. */
const factorSize = {
  /** No rank is larger. */
  rank: z.optional(z.int().check(z.gte(1), z.lte(65_536))),
  /** Share of the matrix's numbers that its factors may hold. */
  keepRatio: z.optional(z.number().check(z.gt(0), z.lte(1))),
  /** ‖Ŵ − W‖ / ‖W‖ that may be made of each matrix. */
  tolerance: z.optional(z.number().check(z.gt(0), z.lt(1))),
};

/** Matrices as tensor trains, Tucker's decompositions, hybrids of a train and dense rows. */
const tensorsStage = z.strictObject({
  type: z.literal("tensors"),
  method: methodName,
  options: methodOptions,
  ...factorSize,
  ...selection,
});

/** The embedding as factors; the head with it, where it is tied. */
const embeddingStage = z.strictObject({
  type: z.literal("embedding"),
  method: methodName,
  options: methodOptions,
  ...factorSize,
});

const poolHeadsStage = z.strictObject({
  type: z.literal("poolHeads"),
  /** Key and value heads that remain. */
  kvHeads: z.int().check(z.gte(1), z.lte(65_536)),
});

/** How masks of heads and neurons are chosen: "fisher", "magnitude", "first" or "zeros". */
export const maskMethods: readonly string[] = ["fisher", "magnitude", "first", "zeros"];

/**
 * Factors for all heads and neurons of the model, most of them 0, so that what stays is within one budget for all of them: the
 * units that are 0 go, the factors of the others go into the matrices behind them. Nothing is trained.
 */
const maskUnitsStage = z
  .strictObject({
    type: z.literal("maskUnits"),
    /**
     * fisher: by the empirical Fisher information (Kwon et al. 2022, arXiv:2204.09656). magnitude: by the sum of a unit's squared
     * weights, with nothing rearranged or tuned. first: the first units of every layer, the same share of each, of a model whose
     * units were put in order (finetune --method dynabert). zeros: what gives nothing goes, of a model that was trained so; no budget.
     */
    method: z._default(z.enum(maskMethods), maskMethods[0]),
    /** The share of the multiply-adds of all heads and neurons that stays … */
    macs: z.optional(z.number().check(z.gt(0), z.lte(1))),
    /** … or the share of the time that they take on this machine, measured before. */
    latency: z.optional(z.number().check(z.gt(0), z.lte(1))),
    /** Tokens of the texts that the budget is for. Default: the mean of the calibration texts; without those 1. */
    tokens: z.optional(z.number().check(z.gte(1), z.lte(1_048_576))),
    /** Texts whose mean loss makes one gradient. */
    batch: z._default(z.int().check(z.gte(1), z.lte(4096)), 32),
    /** Choose anew within every block, by what units do together. */
    rearrange: z._default(z.boolean(), true),
    /** Find the best factors of what stays; without it they are 1. */
    tune: z._default(z.boolean(), true),
    /** Make matrices smaller (default) or leave zeros. */
    shrink: z._default(z.boolean(), true),
    /** How many neurons stay is filled up to a multiple of this with ones that give 0. */
    multipleOf: z._default(z.int().check(z.gte(4), z.lte(1024), z.multipleOf(4)), 4),
    ...selection,
  })
  .check(
    z.refine(
      ({ method, macs, latency }) => method === "zeros" || (macs === undefined) !== (latency === undefined),
      "give either macs or latency",
    ),
    z.refine(
      ({ method, macs, latency }) => method !== "zeros" || (macs === undefined && latency === undefined),
      "what is zero goes, whatever it costs: zeros takes neither macs nor latency",
    ),
    z.refine(
      ({ method, latency }) => method === "fisher" || latency === undefined,
      "only fisher runs texts that can be timed: give macs",
    ),
  );

/** Whole blocks, the first thing a recipe does: what is left is another, shallower model. */
const dropLayersStage = z.strictObject({
  type: z.literal("dropLayers"),
  /** influence: the blocks whose output points most the way of their input (ShortGPT); last: those at the end. */
  method: z._default(z.enum(["influence", "last"]), "influence"),
  /** Blocks to drop. */
  count: z.int().check(z.gte(1), z.lte(4095)),
});

const recipeSchema = z.strictObject({
  version: z.literal(1),
  title: z.optional(z.string().check(z.maxLength(200))),
  seed: z._default(z.int().check(z.gte(0), z.lte(Number.MAX_SAFE_INTEGER)), 0),
  calibration: z.prefault(
    z.strictObject({
      windows: z._default(z.int().check(z.gte(1), z.lte(65_536)), 64),
      /** Tokens of a window. */
      window: z._default(z.int().check(z.gte(4), z.lte(1_048_576)), 512),
      /** Which windows of the text: the first ones, or ones that the seed draws. */
      order: z._default(z.enum(["first", "random"]), "first"),
      /** Measure what the stages do to the outputs of matrices, also where the method would not need it. */
      measureError: z._default(z.boolean(), true),
    }),
    {},
  ),
  stages: z
    .array(
      z.discriminatedUnion("type", [
        dropLayersStage,
        pruneStage,
        quantizeStage,
        scaleStage,
        lowRankStage,
        tensorsStage,
        embeddingStage,
        poolHeadsStage,
        maskUnitsStage,
      ]),
    )
    .check(z.minLength(1), z.maxLength(16)),
});

/** A recipe with all defaults filled in. */
export type Recipe = z.output<typeof recipeSchema>;
/** A recipe as it is written: what has a default may be left out. */
export type RecipeInput = z.input<typeof recipeSchema>;
/** One stage of a recipe, with its defaults: prune, quantize, scale, lowRank, tensors and the others. */
export type RecipeStage = Recipe["stages"][number];

/**
 * @param raw the parsed JSON or YAML text
 * @param file for messages
 * @throws FormatError
 */
export function parseRecipe(raw: unknown, file: string): Recipe {
  return checkSchema(recipeSchema, raw, file);
}

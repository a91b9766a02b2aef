import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import { factorParameters, type Morphemes } from "../../tensor/index.js";
import type { TableShape, TensorMethod } from "./contract.js";
import { morphemesOf } from "./fitMorphemes.js";
import { type Segmentation, segment } from "./segment.js";

const ofMorphemes = z.strictObject({
  order: z._default(z.int().check(z.gte(2), z.lte(4)), 3).check(z.describe("morphemes that a token is made of")),
  norm: z
    ._default(z.boolean(), false)
    .check(z.describe("bring every row to mean 0 and variance 1, then scale and shift its columns, as the paper does")),
  segments: z
    .optional(z.record(z.string(), z.array(z.string()).check(z.minLength(1), z.maxLength(4))))
    .check(
      z.describe(
        "morphemes of a token by its text in the vocabulary; the others are cut by how many tokens share a piece",
      ),
    ),
  sweeps: z
    ._default(z.int().check(z.gte(1), z.lte(1000)), 10)
    .check(z.describe("over all morphemes, of least squares")),
  seed: z
    ._default(z.int().check(z.gte(0), z.lte(2 ** 32 - 1)), 0)
    .check(z.describe("of the numbers that it begins with")),
});
type Options = z.output<typeof ofMorphemes>;

function segmented({ pieces }: TableShape, { order, segments }: Options): Segmentation {
  if (pieces === undefined) {
    throw new UsageError("morphemes are pieces of the tokens' texts: the model needs its tokenizer beside it");
  }
  return segment(pieces, order, segments);
}

/** Every token its morphemes' tensor product, of one table for all places. */
export const morphte: TensorMethod<Options> = {
  id: "morphte",
  title: "MorphTE: tensor products of morphemes",
  paper: "Gan, Zhang, Liang, Zhang 2022, NeurIPS, arXiv:2210.15379",
  of: ["embedding"],
  tolerates: false,
  readsTokens: true,
  options: ofMorphemes,
  plan(shape, options, { rank, keepRatio }): Morphemes {
    const { order, norm } = options;
    const { morphemes } = segmented(shape, options);
    // Widths come in fours, as the products with them do.
    const width = 4 * Math.ceil(Math.ceil(shape.cols ** (1 / order) - 1e-9) / 4);
    const made = (terms: number): Morphemes => ({
      ...({ kind: "morphemes", order, morphemes: morphemes.length, width, norm } as const),
      rank: terms,
    });
    if (keepRatio === undefined) return made(rank!);
    const besides = factorParameters(made(1), shape) - morphemes.length * width;
    const terms = Math.floor((keepRatio * shape.rows * shape.cols - besides) / (morphemes.length * width));
    if (terms >= 1) return made(terms);
    const least = factorParameters(made(1), shape);
    throw new UsageError(
      `${morphemes.length} morphemes of ${width} numbers are ${least} with one term, more than ${keepRatio} of ${shape.rows} × ${shape.cols}`,
    );
  },
  fit: (weight, shape, planned, _, options) =>
    morphemesOf(weight, shape, planned as Morphemes, segmented(shape, options), options),
};

import * as z from "zod/mini";
import type { Factors } from "../../tensor/index.js";

/** Bounds of what `factors` of a declaration may ask for; how they fit the matrix is checked with its shape. */
const size = z.int().check(z.gte(1), z.lte(2 ** 24));
const sizes = z.array(size).check(z.minLength(1), z.maxLength(8));
const start = z.int().check(z.gte(0), z.lte(2 ** 31));

export const factorsSchema: z.ZodMiniType<Factors> = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("product"), rank: size }),
  z.strictObject({
    kind: z.literal("tensor-train"),
    rowModes: sizes,
    colModes: sizes,
    ranks: z.array(size).check(z.maxLength(7)),
    dense: z.optional(z.strictObject({ first: start, rows: size })),
  }),
  z.strictObject({ kind: z.literal("tucker"), rowModes: sizes, colModes: sizes, rowRanks: sizes, colRanks: sizes }),
  z.strictObject({ kind: z.literal("kronecker"), rowModes: sizes, colModes: sizes, rank: size }),
  z.strictObject({ kind: z.literal("word2ket"), colModes: sizes, rank: size }),
  z.strictObject({
    kind: z.literal("morphemes"),
    order: z.int().check(z.gte(1), z.lte(8)),
    morphemes: size,
    width: size,
    rank: size,
    norm: z.boolean(),
  }),
]);

import * as z from "zod/mini";
import { factorProblems } from "../../tensor/internal.js";
import { factorsSchema } from "./factorsSchema.js";

/** Bounds a declaration may ask for; what it says is then checked against the sizes of the stored parts. */
const size = z.int().check(z.gte(1), z.lte(2 ** 31));

/** Integer codes on uniform grids: value = scale · (code − zero), one scale for `groupSize` consecutive entries of a row. */
const tensorGrid = z.strictObject({
  bits: z.int().check(z.gte(2), z.lte(8)),
  /** Entries of a row that share a scale; the last group of a row may be shorter. */
  groupSize: size,
  /** zero is 2^(bits − 1) everywhere; otherwise each group has its own. */
  symmetric: z.boolean(),
  scaleDType: z.enum(["F32", "BF16", "F16"]),
});

/**
 * How a matrix lies in the file when it is not plain values: an entry of `tensors` in rarefy.json. Raw tensors carry the
 * parts (`partsOf`); the pair is read back as one tensor of `dtype` and `shape`.
 */
const matrixShape = z.array(size).check(z.length(2));
export const tensorDeclaration = z.discriminatedUnion("encoding", [
  z.strictObject({ encoding: z.literal("grid"), dtype: z.literal("F32"), shape: matrixShape, grid: tensorGrid }),
  z.strictObject({
    encoding: z.literal("bitmask"),
    dtype: z.enum(["F32", "BF16", "F16"]),
    shape: matrixShape,
    /** Entries whose bit is set. */
    nonZeros: z.int().check(z.gte(0), z.lte(2 ** 32 - 1)),
    /** Present: the non-zeros are codes, and `dtype` is F32. */
    grid: z.optional(tensorGrid),
  }),
  z
    .strictObject({
      encoding: z.literal("factors"),
      dtype: z.literal("F32"),
      shape: matrixShape,
      /** Type of the numbers of the parts. */
      values: z.enum(["F32", "BF16", "F16"]),
      factors: factorsSchema,
    })
    .check(({ value, issues }) => {
      const [rows, cols] = value.shape;
      for (const message of factorProblems(value.factors, { rows, cols })) {
        issues.push({ code: "custom", message, input: value });
      }
    }),
  z.strictObject({
    encoding: z.literal("24-bitmask"),
    dtype: z.enum(["F32", "BF16", "F16"]),
    shape: matrixShape.check(z.refine((shape) => shape[1] % 4 === 0, "the number of columns is not a multiple of 4")),
  }),
]);

/** The grid that the codes of a tensor lie on: bits, group size, zero points, type of the scales. */
export type TensorGrid = z.infer<typeof tensorGrid>;
/** How the parts of an encoded tensor make it up, as rarefy.json declares it. */
export type TensorDeclaration = z.infer<typeof tensorDeclaration>;
/** Of matrices whose entries lie in the file one by one. */
export type PackedDeclaration = Exclude<TensorDeclaration, { encoding: "factors" }>;

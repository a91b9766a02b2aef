import type * as z from "zod/mini";
import type { Factors } from "../../tensor/index.js";
import type { AnyOptions, Shape } from "../contract.js";
import type { FittedFactors } from "./fit.js";

/** How small factors are to be: one of these. */
export interface FactorSize {
  /** No rank is larger. */
  rank?: number;
  /** Share of the matrix's numbers that its factors may hold. */
  keepRatio?: number;
  /** ‖Ŵ − W‖ / ‖W‖ that may be made. */
  tolerance?: number;
}

/** A matrix; where its rows are of tokens and the method reads what those are called, their texts by id. */
export interface TableShape extends Shape {
  readonly pieces?: readonly (string | undefined)[];
}

/**
 * Puts factors in the place of a matrix: of one of the blocks, of the embedding, or of either. To add one: a line in the table of
 * this folder, and its kind of factors in tensor/factors.
 */
export interface TensorMethod<Options = AnyOptions> {
  /** Key of the table, name on the command line and in recipes. */
  readonly id: string;
  readonly title: string;
  readonly paper: string;
  /** "blocks": what is multiplied with; "embedding": whose rows are looked up. */
  readonly of: readonly ("blocks" | "embedding")[];
  /** Whether it takes a tolerance. */
  readonly tolerates: boolean;
  /** Whether it must be given the texts of the tokens. */
  readonly readsTokens?: true;
  readonly options: z.ZodMiniType<Options>;
  /** Modes and the largest ranks for a shape, before any number has been seen. @throws UsageError for what cannot be made of it */
  plan(shape: TableShape, options: Options, size: FactorSize): Factors;
  /** @param weight f32 [rows, cols] @param planned from `plan`, with the same options */
  fit(
    weight: Float32Array,
    shape: TableShape,
    planned: Factors,
    tolerance: number | undefined,
    options: Options,
  ): FittedFactors;
}

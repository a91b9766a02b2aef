import type * as z from "zod/mini";
import type { Random } from "../../core/index.js";
import type { Adapter } from "../../io/index.js";
import type { FloatArray, ParameterInfo, Values } from "../values.js";

/** One matrix of a model as PEFT knows it: a module, W [rows, cols], in the pieces that the model multiplies with. */
export interface AdaptedModule {
  /** "model.layers.0.self_attn.q_proj" */
  name: string;
  rows: number;
  cols: number;
  /** What its maps are called in any family: "q_proj". */
  roles: readonly string[];
  /** Maps of the model that lie in it: a name of its weights, and which rows of the module they are. */
  pieces: readonly { parameter: string; rows: readonly number[] }[];
}

/** What is learnt of a module while its weights stay. One file, one line in index.ts. */
export interface AdapterMethod<Options = unknown> {
  id: string;
  title: string;
  paper: string;
  options: z.ZodMiniType<Options>;
  /** What is trained, with its first values: a model with them is the model without. */
  parameters(module: AdaptedModule, options: Options, random: Random): (ParameterInfo & { first: FloatArray })[];
  /** Fills `out` [rows of the piece, cols] with what is multiplied with in place of a piece's W. */
  effective(own: AdaptedPiece<Options>, out: FloatArray): void;
  /** Adds to `gradients` of what is trained what dL/d(effective) [rows of the piece, cols] makes of it. */
  pullBack(own: AdaptedPiece<Options>, outer: FloatArray, gradients: Values): void;
  /** In the layout of PEFT. */
  adapter(modules: readonly AdaptedModule[], values: Values, options: Options): Adapter;
  /** Values of `parameters` from an adapter that was written before. */
  values(module: AdaptedModule, adapter: Adapter): Map<string, FloatArray> | undefined;
}

/** A piece of a module with its W, and the values that are trained by their names. */
export interface AdaptedPiece<Options> {
  module: AdaptedModule;
  rows: readonly number[];
  weight: FloatArray;
  /** u8: where 0, the weight stays as it is. */
  mask?: Uint8Array;
  values: Values;
  options: Options;
}

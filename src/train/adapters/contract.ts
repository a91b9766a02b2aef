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
  /** Maps of the model that lie in it. */
  pieces: readonly ModulePiece[];
}

/** A map of a model that lies in a module. */
export interface ModulePiece {
  /** Name of its weights. */
  parameter: string;
  /** Which rows of the module they are. */
  rows: readonly number[];
  /** Name of what is added to its outputs. */
  bias?: string;
  /** Rows of one head, where its outputs are queries, keys or values. */
  headWidth?: number;
}

/** What every kind of adapter says of itself. */
interface AnyAdapterMethod<Options> {
  id: string;
  title: string;
  paper: string;
  options: z.ZodMiniType<Options>;
  /** What is trained, with its first values: a model with them is the model without. */
  parameters(module: AdaptedModule, options: Options, random: Random): (ParameterInfo & { first: FloatArray })[];
  /** As it is written. */
  adapter(modules: readonly AdaptedModule[], values: Values, options: Options): Adapter;
  /** Values of `parameters` from an adapter that was written before. */
  values(module: AdaptedModule, adapter: Adapter): Map<string, FloatArray> | undefined;
}

/** What is learnt of a module while its weights stay, so that other weights do the same. One file, one line in index.ts. */
export interface AdapterMethod<Options = unknown> extends AnyAdapterMethod<Options> {
  /** Whether the whole output is multiplied, as PEFT does it: the bias is then a column of W for `effective` and `pullBack`. */
  multipliesBias?(module: AdaptedModule, options: Options): boolean;
  /** Fills `out` [rows of the piece, cols] with what is multiplied with in place of a piece's W. */
  effective(own: AdaptedPiece<Options>, out: FloatArray): void;
  /** Adds to `gradients` of what is trained what dL/d(effective) [rows of the piece, cols] makes of it. */
  pullBack(own: AdaptedPiece<Options>, outer: FloatArray, gradients: Values): void;
}

/** What is learnt of a module and depends on the token, so that no weights do the same. One file, one line in index.ts. */
export interface RoutedAdapterMethod<Options = unknown> extends AnyAdapterMethod<Options> {
  /**
   * What is done to a piece while the model is traced: a `TracedAdaptation` (trace/adaptation.ts), which is not named here so that
   * declarations of the package do without those of the engine.
   * @param piece its number in the module
   */
  trace(module: AdaptedModule, piece: number, options: Options): object;
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

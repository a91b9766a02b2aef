import type * as z from "zod/mini";
import type { Pattern, PatternType, Scope } from "./pattern.js";
import type { InputStatistics, StatisticId } from "./statistics.js";

/**
 * What a compression method is. A method sees one weight matrix and what was measured at its input, and returns new
 * arrays; it knows no model, file or device, holds no state and gives the same result for the same input everywhere.
 * Weights are f32 row-major W [rows = out, cols = in], y = W·x.
 *
 * To add one: a file beside its kin and a line in the table of its folder.
 */
export interface Method<Options> {
  /** Key of the table, name on the command line and of the file. */
  readonly id: string;
  readonly title: string;
  /** Where it was published. */
  readonly paper: string;
  /** Parses and completes options; every option has a default, a range and a description. */
  readonly options: z.ZodMiniType<Options>;
  /** Which statistics of the layer's input it reads. */
  needs(options: Options): readonly StatisticId[];
  /** Multiply-adds for one matrix, to tell how long it will take; left out where they are those of one sweep over it. */
  multiplyAdds?(shape: Shape, options: Options): number;
}

/** Options after parsing, when the method is known only by name. */
export type AnyOptions = Record<string, unknown>;

/** One linear layer. */
export interface Layer {
  /** f32 [rows, cols]; never written to. */
  weight: Float32Array;
  rows: number;
  cols: number;
  /** u8 [rows, cols] of earlier pruning, 1 = keep: whatever a method does, entries with 0 stay exactly 0. */
  mask?: Uint8Array;
}

/** Of a weight matrix: outputs and inputs. */
export interface Shape {
  rows: number;
  cols: number;
}

/** A matrix that loses rows or columns together with others. */
export interface CoupledMember {
  layer: Layer;
  axis: "rows" | "columns";
}

/**
 * The matrices of one block that lose units together.
 * @property count neurons: intermediateSize. Heads: kvHeads, because a key and value head goes with all the query heads
 * that read it (grouped-query attention).
 */
export interface CoupledGroup {
  count: number;
  members: readonly CoupledMember[];
}

// --- pruning ---------------------------------------------------------------------------------------------------------

/** Chooses which weights of a layer become 0, and may move the others to make up for it. */
export interface PruneMethod<Options = AnyOptions> extends Method<Options> {
  /** The patterns it can give, each with the scopes it admits; the first scope is the default. */
  readonly patterns: Readonly<Partial<Record<PatternType, readonly Scope[]>>>;
  /** Further limits on shape and options, in words; what the pattern itself demands is checked for all methods. */
  problems?(shape: Shape, pattern: Pattern, options: Options): string[];
  /**
   * f32 [rows, cols]: the root of the loss estimated for removing each weight alone. Squares add up over blocks, rows,
   * neurons and heads. Present in methods that can choose such units.
   */
  score?(layer: Layer, statistics: InputStatistics, options: Options): Float32Array;
  /**
   * f32 [count]: what is lost with each unit of a group, for methods that do not only add up the squares of `score`.
   * @param statistics one per member
   */
  unitScores?(group: CoupledGroup, statistics: readonly InputStatistics[], options: Options): Float32Array;
  /** @throws UsageError when pattern, shape, options and statistics do not fit together. */
  prune(layer: Layer, statistics: InputStatistics, pattern: Pattern, options: Options): PruneResult;
}

/** What a layer is after pruning. */
export interface PruneResult {
  /** f32 [rows, cols]; exactly +0 where `mask` is 0. */
  weight: Float32Array;
  /** u8 [rows, cols], 1 = keep. */
  mask: Uint8Array;
  /** WRP: u8 [rows, cols], 1 for kept entries outside the pattern, which go into a second, very sparse matrix. */
  recovered?: Uint8Array;
  /** Present when weights were rounded in the same go: the codes that `weight` stands for. */
  quantized?: Omit<QuantizeResult, "weight">;
  /** The method's own loss: Σ over rows of the damped quadratic objective, per token. */
  loss?: number;
}

// --- quantisation ----------------------------------------------------------------------------------------------------

/** Rounds the weights of a layer to few bits. */
export interface QuantizeMethod<Options = AnyOptions> extends Method<Options> {
  problems?(shape: Shape, options: Options): string[];
  /**
   * f32 [cols]: factors of the input channels (see ScaleMethod) shared by all matrices that read the input, so that they
   * can be folded into whatever makes it.
   */
  factors?(consumers: readonly Layer[], statistics: InputStatistics, options: Options): Float32Array;
  /** @param factors from `factors`, when the layer shares its input; otherwise they are chosen for it alone */
  quantize(layer: Layer, statistics: InputStatistics, options: Options, factors?: Float32Array): QuantizeResult;
}

/**
 * Integer codes on uniform grids, one grid for `groupSize` consecutive entries of a row:
 * w ≈ scale · (code − zero). A grid shared by a whole row or matrix is repeated per row.
 */
export interface QuantizeResult {
  /** f32 [rows, cols]: the values that the codes stand for. */
  weight: Float32Array;
  /** i16 [rows, cols]. */
  codes: Int16Array;
  /** f32 [rows, groups], groups = ⌈cols / groupSize⌉. */
  scales: Float32Array;
  /** i16 [rows, groups]; all 0 for symmetric grids, whose codes are signed. */
  zeros: Int16Array;
  bits: number;
  groupSize: number;
  /** How the method quantises the layer's input, when it does. */
  activation?: ActivationQuantization;
  /** f32 [cols], factors the input channels are to be divided by; in `weight` they are divided out again. */
  inputScales?: Float32Array;
  /** i32, ascending: input channels whose weights stay as they were, outside the codes. */
  outlierColumns?: Int32Array;
  loss?: number;
}

/** How the input of a quantised layer is rounded while the model runs. */
export interface ActivationQuantization {
  bits: number;
  symmetric: boolean;
  per: "tensor" | "token";
  /** LLM.int8(): input channels that reach this magnitude in a call are multiplied unquantised; 0 = none. */
  outlierThreshold: number;
}

/** Chooses factors that move difficulty from the inputs of some matrices into their weights, exactly in real numbers. */
export interface ScaleMethod<Options = AnyOptions> extends Method<Options> {
  /**
   * f32 [cols], all > 0: divide the input channels by it and multiply the weight columns.
   * @param consumers all matrices that read this input (q, k, v; gate, up)
   */
  factors(consumers: readonly Layer[], statistics: InputStatistics, options: Options): Float32Array;
}

// --- low rank --------------------------------------------------------------------------------------------------------

/** Puts a product of two narrow matrices in place of a layer's weight. */
export interface LowRankMethod<Options = AnyOptions> extends Method<Options> {
  decompose(layer: Layer, statistics: InputStatistics, options: Options): Spectrum;
}

/** A decomposition from which factors of any rank can be cut. */
export interface Spectrum {
  /** f64, descending. */
  singularValues: Float64Array;
  /** Loss of cutting at a rank is Σ of the squared singular values left out, in the method's own norm. */
  factors(rank: number): LowRankFactors;
}

/** W ≈ left · right. */
export interface LowRankFactors {
  rank: number;
  /** f32 [rows, rank] */
  left: Float32Array;
  /** f32 [rank, cols] */
  right: Float32Array;
}

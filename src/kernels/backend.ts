import type { ActivationFunction } from "../core/index.js";
import type { PackedFormatId, WeightFormatId } from "../pack/index.js";
import type { ExpertOperations } from "./experts.js";
import type { Activation, Matrix, RopeTable, RowSource, Vector } from "./handles.js";
import type { InputChoice } from "./inputChoice.js";
import type { KvCache, KvCacheSpec, KvMoves } from "./kv.js";
import type { Region, WeightLoading } from "./region.js";
import type { Sight, SightSpec } from "./sight.js";
import type { WeightArea } from "./weightArea.js";

export type { Activation, Matrix, MatrixPart, RopeLayout, RopeTable, RowSource, Vector } from "./handles.js";

/**
 * The contract between models and hardware. A backend owns every weight and every activation; a model only enqueues
 * operations on handles and awaits a read when it needs numbers. The same model code therefore drives plain TypeScript,
 * WebAssembly threads and a GPU command encoder. Operations run in the order in which they were enqueued.
 *
 * Activations are f32 matrices [rows, cols]: one row per token. Weights are written W [out, in], y = W·x.
 */

export interface LinearOptions {
  /** f32 [w.rows], added to every row. */
  bias?: Vector;
  /** Add to `out` instead of overwriting it (the residual stream). */
  accumulate?: boolean;
  /**
   * Activation sparsity, one threshold per part of `w`: the part sees x where |x| > threshold and 0 elsewhere (TEAL), and
   * with one row in `x` the weight columns of dropped inputs are never read. 0 keeps everything that is not exactly 0.
   * Thresholds are compared as f32.
   */
  thresholds?: readonly number[];
  /** First row of `x` the thresholds apply to; rows before it are dense. Default 0. */
  sparseFromRow?: number;
  /** Multiply with f(x) · up, as `gatedActivation` with x as its gate gives it, instead of with x; see `fusesGates`. */
  gate?: { up: Activation; f: ActivationFunction; gateThreshold?: number };
}

/** What changes a gated activation. */
export interface GateOptions {
  gateThreshold?: number;
  clamped?: { readonly limit: number; readonly sharpness: number };
}

/** What `Backend.map` applies: an activation function, x · by, by · tanh(x / by), or x within ±by. */
export type ElementFunction = ActivationFunction | { readonly f: "scale" | "softcap" | "clamp"; readonly by: number };

/** Heads, scale and reach of one call of `attention`. */
export interface AttentionOptions {
  queryHeads: number;
  /** Scores are multiplied by this; usually 1/√headDim. */
  scale: number;
  /** Slot of the first row of `q`; those of all rows must have been stored. Where nothing is thrown away, its position. */
  start: number;
  /** Which slots each row sees. Default: causal, all up to its own. */
  sight?: Sight;
  /** Scores become softcap · tanh(score / softcap) (Gemma 2, arXiv 2408.00118). Undefined: none. */
  softcap?: number;
  /**
   * f32 [queryHeads]: a score of every head that takes a share of its softmax and has no value; scale and softcap are not
   * applied to it (gpt-oss, arXiv 2508.10925). A row that sees nothing still gives 0.
   */
  sinks?: Vector;
}

/** How `poolRows` makes one row of several. */
export interface PoolOptions {
  /** What a column of the result is of a group's. */
  readonly pool: "mean" | "least" | "largest";
  /** Rows of a group. */
  readonly every: number;
}

/** The last axes of what `swapAxes` turns. */
export interface SwapOptions {
  /** Length of the axis that goes to the front. */
  readonly turned: number;
  /** Numbers behind it that stay together. */
  readonly run: number;
}

/** Sizes of a table of morphemes, and what becomes of the scores; see `Morphemes` of rarefy/tensor. */
export interface MorphemeScoreOptions {
  /** f32 [columns of the result]: every score is multiplied by its own. */
  scale?: Vector;
  /** Morphemes of a row, how many there are, the width of their vectors, and how many terms are added up. */
  order: number;
  morphemes: number;
  width: number;
  rank: number;
  /** Add to `out` instead of overwriting it. */
  accumulate?: boolean;
}

/** What `headScores` multiplies. */
export interface HeadScoreOptions {
  queryHeads: number;
  kvHeads: number;
  /** Scores are multiplied by this. */
  scale: number;
  /** Rows, and keys, that are added up along antidiagonals (XAttention, arXiv 2503.16428); default 1: none. */
  stride?: number;
  /** Add to `out` instead of overwriting it. */
  accumulate?: boolean;
}

/** The largest values of a row, with their places. */
export interface TopK {
  /** Descending by value; ties by the lowest id. */
  ids: Uint32Array;
  values: Float32Array;
}

/**
 * The largest value of every row, found where the values are: a model can go on with the tokens chosen before anybody has
 * read them.
 */
export interface Chosen extends Disposable {
  /** Number of rows, and so of tokens. */
  readonly length: number;
  /** As `Backend.embed` with the ids. Before `read`. */
  embed(out: Activation, table: Matrix): void;
  /**
   * As `Backend.topK` with k = 1, when it was enqueued: waits for nothing that was enqueued later. Once; disposes of it.
   * Counts of what it waited for arrive with it.
   */
  read(): Promise<TopK[]>;
}

/**
 * What ran since the counters were last taken. Counted, not estimated.
 *
 * A `linear` is a *sparse matrix-vector product* when it has thresholds, `x` has one row and `sparseFromRow` is 0. Then
 * each part of `w` counts by itself: `cols` inputs, of which those with |x| ≤ threshold are skipped; and the bytes read
 * are `columnBytes(part.rows)` of its format for every input kept plus `groupScaleBytes(part.rows)` for every group of 32
 * inputs of which at least one was kept; or `bytesRead` of a format that leaves zeros out. Every other `linear` reads `w.byteLength` bytes once, whatever the number of
 * rows of `x`, and counts no inputs. Attention counts the keys and values that it has to read, `readKeys` and `headScores` what
 * they read of keys. No other operation counts.
 */
export interface BackendCounters {
  /** Weight bytes read by matrix products. */
  weightBytesRead: number;
  /** Inputs offered to sparse matrix-vector products, and those skipped. */
  inputs: number;
  inputsSkipped: number;
  /**
   * Bytes of keys and values that attention has to read when 16 rows share what is read for them: exact for one row. Of a
   * block mask its listed blocks, else what lies between the first and the last slot that one of the rows sees. Also what
   * is read of keys to decide what attention is to see.
   */
  kvBytesRead: number;
}

/** What a GPU was asked for. */
export interface GpuWork {
  dispatches: number;
  passes: number;
  submits: number;
}

/** What products take on this machine. @param density share of weights, or of blocks, that are not 0 */
export interface ProductCosts {
  /** Predicted milliseconds of a matrix-vector product, with weights that come from memory: what a matrix takes of a generated token. */
  predictMs(format: PackedFormatId, rows: number, cols: number, density: number): number;
  /** The same of one token of a prompt, in a product of many rows; without it a prompt takes the same in all formats. */
  predictPromptMs?(format: PackedFormatId, rows: number, cols: number, density: number): number;
}

/** What a backend is and how it came to be chosen. */
export interface BackendInfo {
  /** "reference", "wasm", "webgpu". */
  id: string;
  /** What was chosen and why, for people: "WebAssembly SIMD, relaxed, u8 dot, 2 threads". */
  description: string;
  /** What the bits of products of f32 weights depend on, the same for any number of threads: equal words, equal bits. */
  arithmetic: string;
  threads: number;
}

/**
 * Owns weights, activations and caches on one device, and runs a queue of operations on them in order. What it hands out
 * is a handle; only `read` and its like wait.
 */
export interface Backend extends WeightLoading, ExpertOperations, Disposable {
  readonly info: BackendInfo;
  /** The formats that it has kernels for; left out: all dense ones. */
  readonly formats?: readonly PackedFormatId[];
  /** Whether `linear` takes a `gate`: worth it where every operation has a price of its own. */
  readonly fusesGates?: boolean;

  // --- storage -----------------------------------------------------------------------------------------------------
  /**
   * Begins weights that are given back together, before the backend is.
   * @param plan how much is going to be loaded, so that memory can be laid out once
   * @throws DeviceError when the machine cannot hold it
   */
  openRegion(plan: { weightBytes: number }): Region;
  /**
   * Memory for weights that are read while a model runs; left out by backends that cannot multiply from such. It counts as weights.
   * @throws DeviceError when the machine cannot hold it, or not in one piece
   */
  openArea?(byteLength: number): Promise<WeightArea>;
  /** Bytes that loading such a stack takes at most, with what is needed only meanwhile; left out where that is the matrix alone. */
  loadingBytes?(parts: readonly Pick<RowSource, "rows" | "cols">[], format: PackedFormatId): number;
  /** Uninitialised activation. `cols` is a multiple of 4. */
  allocate(rows: number, cols: number): Activation;
  /** Gives an activation made by `allocate` back. Views of it must not be used any more. */
  release(activation: Activation): void;
  /** @throws UsageError for widths that are no multiples of 4, or no layers or slots; DeviceError where they do not fit. */
  createKvCache(spec: KvCacheSpec): KvCache;
  /** @throws UsageError for a block mask whose parts do not fit one another */
  loadSight(spec: SightSpec): Sight;

  // --- operations, enqueued ----------------------------------------------------------------------------------------
  /** Copies values in: f32 [out.rows * out.cols] (the caller may reuse `values` at once). */
  write(out: Activation, values: Float32Array): void;
  /** out[r] = row ids[r] of `table`, where `table` is [vocabulary, out.cols]. */
  embed(out: Activation, table: Matrix, ids: Uint32Array): void;
  /**
   * out = x / rms(x) · weight over every run of `weight.length` columns (so heads can be normalised one by one), with
   * rms = √(mean(x²) + epsilon). `out` may be `x`.
   */
  rmsNorm(out: Activation, x: Activation, weight: Vector, epsilon: number): void;
  /**
   * out = (x − mean(x)) / √(variance(x) + epsilon) · weight (+ bias) over every run of `weight.length` columns, with the
   * variance of the whole run (divided by its length). `out` may be `x`. (Ba et al. 2016, arXiv 1607.06450)
   */
  layerNorm(out: Activation, x: Activation, weight: Vector, bias: Vector | undefined, epsilon: number): void;
  /** out = x·Wᵀ (+ bias) (+ out). x [n, w.cols], out [n, w.rows]. `out` must not overlap `x`. */
  linear(out: Activation, x: Activation, w: Matrix, options?: LinearOptions): void;
  /**
   * Rotates every run of `table.headDim` columns of row r by position `start + r`: the pairs (a, b) of the table's layout
   * become (a · cos − b · sin, b · cos + a · sin) (RoFormer, arXiv 2104.09864).
   */
  rope(x: Activation, table: RopeTable, start: number): void;
  /**
   * Stores k [n, heads * key] and v [n, heads * value] of one layer in slots start … start + n − 1, with no mass yet; `v` is
   * undefined where values lie in their keys.
   */
  appendKv(cache: KvCache, layer: number, k: Activation, v: Activation | undefined, start: number): void;
  /**
   * Grouped-query attention over the cache: q [n, queryHeads * key], out [n, queryHeads * value]. A row that sees nothing
   * gives 0. In a cache with `mass`, adds what every slot was given.
   */
  attention(out: Activation, q: Activation, cache: KvCache, layer: number, options: AttentionOptions): void;
  /**
   * Copies keys and values of the slots 0 … slots − 1 of every layer into another cache, whose layers are the same and which may
   * have another number of slots.
   * @param slots of all layers, or of each
   * @throws UsageError for other layers, too few slots, codes or mass
   */
  copyKv(from: KvCache, to: KvCache, slots: number | readonly number[]): void;
  /** out [n, heads * key] = keys of one layer in slots start … start + n − 1, as attention reads them. */
  readKeys(out: Activation, cache: KvCache, layer: number, start: number): void;
  /** out [⌈x.rows / every⌉, x.cols]: every `every` rows of `x` as one; the last group may have fewer. */
  poolRows(out: Activation, x: Activation, options: PoolOptions): void;
  /** Every row of `x` is [lead, turned, run]; the row of `out`, which must not overlap `x`, is [turned, lead, run]. */
  swapAxes(out: Activation, x: Activation, options: SwapOptions): void;
  /**
   * Scores of every query head with what stands for its keys: q [n, queryHeads * key], k [m, kvHeads * key], out
   * [⌈n / stride⌉, queryHeads * width] with width ≥ ⌈m / stride⌉. Column h · width + b of row a is scale · Σ q[a · stride +
   * stride − 1 − t] · k[b · stride + t] over t < stride as far as there are such rows. Columns b ≥ ⌈m / stride⌉ hold anything.
   */
  headScores(out: Activation, q: Activation, k: Activation, options: HeadScoreOptions): void;
  /**
   * Scores of rows that are sums of tensor products of morphemes, of which the last one has been multiplied with: table f32
   * [rank · morphemes · width], index f32 [out.cols · order] of whole numbers below `morphemes`, x [n, at least rank · morphemes ·
   * run] with run = width^(order − 1). Column i of a row is Σ_k Σ_p x[k, index[i, order − 1], p] · Π_j table[k, index[i, j], p_j] over the
   * digits p_j of p in base `width`, j < order − 1, the first the most significant. `out` must not overlap `x`. Counts its vectors as
   * weight bytes.
   */
  morphemeScores(out: Activation, x: Activation, table: Vector, index: Vector, options: MorphemeScoreOptions): void;
  /** Moves entries of one layer to other slots. */
  moveKv(cache: KvCache, layer: number, moves: KvMoves): void;
  /**
   * `rope` of q and k from `options.position`, `appendKv` at `options.start`, then `attention`, as one operation; q and k
   * keep their values or not. Only with a table that turns whole heads by halves. Left out where the single ones serve as
   * well.
   */
  rotatedAttention?(
    out: Activation,
    rows: { q: Activation; k: Activation; v: Activation },
    table: RopeTable,
    cache: KvCache,
    layer: number,
    options: AttentionOptions & { position: number },
  ): void;
  /**
   * out = f(gate) · up, element by element; zero where |f(gate)| < gateThreshold when one is given (CATS). With `clamped`
   * the gate counts as min(gate, limit), f is gate · sigmoid(sharpness · gate), and what it is multiplied with is up, within
   * ±limit, + 1 (gpt-oss, arXiv 2508.10925). `out` may be `gate` or `up`.
   */
  gatedActivation(
    out: Activation,
    gate: Activation,
    up: Activation,
    f: ActivationFunction,
    options?: GateOptions,
  ): void;
  /** out = f(x), element by element. `out` may be `x`. */
  map(out: Activation, x: Activation, f: ElementFunction): void;
  /**
   * out = x where an input counts in its row, else 0; see `InputChoice`. `out` must not overlap `x`. A sum of magnitudes is rounded
   * as the backend adds up, so that a row may have one input more or fewer by `mass`.
   */
  keepLargest(out: Activation, x: Activation, choice: InputChoice): void;
  /** out += x. */
  add(out: Activation, x: Activation): void;
  /**
   * gram [x.cols, x.cols] += xᵀ·x on and above the diagonal; what is below is undefined. Summed in f32. What second-order
   * compression wants to know of a layer's inputs; left out where the host does it as well.
   */
  addGram?(gram: Activation, x: Activation): void;

  // --- reads, which wait for everything enqueued -------------------------------------------------------------------
  /** f32 [rows * cols], a copy. */
  read(activation: Activation): Promise<Float32Array>;
  /** The k largest values of every row, as [rows] results. */
  topK(activation: Activation, k: number): Promise<TopK[]>;
  /** Enqueues `topK` with k = 1. Left out where operations run as they are called, so that nothing is won. */
  choose?(activation: Activation): Chosen;
  /**
   * What the slots of each layer were given by attention since they were filled: f32 [heads, slots]. Slots that were never
   * filled hold anything.
   * @throws UsageError for a cache without `mass`
   */
  readMass(cache: KvCache): Promise<Float32Array[]>;
  /** Waits until everything enqueued has run. */
  flush(): Promise<void>;
  /** Reads the counters and sets them to 0. */
  takeCounters(): BackendCounters;
  /** Calls of the GPU's interface since they were last asked for; left out where there is none. */
  takeGpuWork?(): GpuWork;
  /**
   * Milliseconds in which the GPU computes for `work`, by its own clock; undefined where it keeps no timestamps. Left out where
   * there is no GPU.
   */
  timeGpu?(work: () => Promise<void>): Promise<number | undefined>;
  /** Bytes held now: weights, activations, caches. */
  memoryBytes(): number;
  /**
   * What this machine reads from memory at best with this backend's threads, in bytes per second: the ceiling that decode
   * speeds are held against. Left out where it cannot be measured.
   */
  measureReadBandwidth?(): Promise<number>;
  /**
   * Times products of small matrices in the dense and sparse formats of a value type, the first time it is asked for: about
   * half a second. Left out by backends without sparse formats.
   */
  measureCosts?(value: WeightFormatId): Promise<ProductCosts>;
}

import type { ModelConfig } from "../arch/index.js";
import type { FormatError } from "../core/index.js";
import type {
  Activation,
  AttentionMass,
  Backend,
  Chosen,
  KvCache,
  KvCodes,
  KvMoves,
  RoutedSlots,
  Sight,
} from "../kernels/index.js";
import type { WeightFormatId } from "../pack/index.js";
import type { OffloadPlan } from "./offload/options.js";
import type { OffloadLayout } from "./offload/placement.js";
import type { OffloadCounters } from "./offload/residency.js";
import type { MatrixChoice } from "./structure.js";

/** Sees the dense activation of a site, before any threshold; it must read what it needs before its promise resolves. */
export interface Tap {
  /** Ids of sites of the description (`sitesOf`); a block shows those that it has. */
  sites: readonly string[];
  /** @param slots in a mixture of experts, whose rows are sent where */
  onActivation(layer: number, site: string, activation: Activation, slots?: TappedSlots): Promise<void>;
}

/** Slots of some of the rows of a pass: those before the first to which thresholds apply come by themselves. */
export interface TappedSlots extends RoutedSlots {
  /** The row of the pass that `rows` counts from. */
  firstRow: number;
  /** What the rows of the activation are: what enters the experts has one for every token, all behind it one for every slot. */
  of: "rows" | "slots";
}

/** Thresholds a model runs with: inputs with |x| ≤ threshold count as 0. */
export interface ActivationThresholds {
  /** One record per layer, by the roles of its linear maps (`LinearSpec.role`); 0 or left out is dense. */
  maps: readonly Readonly<Record<string, number>>[];
  /** CATS: |f(gate)| below this becomes 0. One per layer; for blocks with a gate. */
  gate?: readonly number[];
  /** Before the thresholds: which inputs of every linear map in the blocks count, by their size within a token. */
  inputs?: InputShare;
}

/**
 * Which inputs of a linear map count: all but the share `zeros` of smallest magnitude (Q-Sparse, arXiv 2407.10969); of every `of`
 * neighbours the `keep` largest (its block form); or the fewest whose magnitudes add up to the share `mass` of all.
 */
export type InputShare =
  | { readonly zeros: number }
  | { readonly keep: number; readonly of: number }
  | { readonly mass: number };

/**
 * What of the inputs is skipped: what thresholds say; "exact", zeros that a ReLU leaves and nothing else, which changes no result;
 * "dense", nothing.
 */
export type PassThresholds = ActivationThresholds | "exact" | "dense";

/** Queries of a pass in one layer, rotated, when its keys and values are in the cache: what dynamic patterns decide by. */
export interface LayerQueries {
  readonly layer: number;
  /** f32 [rows, queryHeads * key] */
  readonly q: Activation;
  readonly cache: KvCache;
  /** Slot of the first row. */
  readonly slot: number;
  readonly queryHeads: number;
  /** What scores are multiplied by. */
  readonly scale: number;
}

/** What the rows of a pass see in a layer; undefined for what they see anyway. Whoever asks disposes of it. */
export type FindSight = (queries: LayerQueries) => Promise<Sight | undefined>;

/** A LoRA adapter in memory beside the weights of a model; see `loadAdapter`. */
export interface LoadedAdapter extends Disposable {
  /** Whose rows it may be added to. */
  readonly model: Model;
  readonly byteLength: number;
}

/** Rows of a pass whose slots in the cache follow one another. */
export interface SlotRun {
  readonly rows: number;
  /** Slot of the first of them. */
  readonly slot: number;
}

/** What one pass computes, where it is sparse and who watches. */
export interface ForwardOptions {
  /** Which logits to compute: of every row, of the last (default), or none. */
  logits?: "all" | "last" | "none";
  /** First position (not row) to which the thresholds apply; default 0, all. Ignored without thresholds. */
  sparseFrom?: number;
  tap?: Tap;
  /** Those of this pass. Default: `Model.thresholds`, and without those "exact". */
  thresholds?: PassThresholds;
  /** What is added to the weights; several add up. Default: `Model.adapters`. */
  adapters?: readonly LoadedAdapter[];
  /** Slot of the first token, or that in every layer; default its position, as where nothing is ever thrown away. */
  slot?: number | readonly number[];
  /** Where the tokens go instead, in a cache whose slots are given out in pages: all of them, in order. Together with `sights`. */
  places?: readonly SlotRun[];
  /** What each layer sees, by slots, instead of what the model was made for; undefined for one is causal. */
  sights?: readonly (Sight | undefined)[];
  /** Asked in layers that see everything before: what is seen once queries are known. */
  findSight?: FindSight;
  /** Runs a block only as far as it stores keys and values, and leaves the residual stream as it is. */
  keysOnly?: boolean;
  /** Called in every block, and waited for, when its attention has been enqueued up to what is added to the residual stream. */
  onAttended?: () => Promise<void>;
}

/** Tokens of one sequence that are run in one pass with those of others. */
export interface SequencePart {
  tokens: Uint32Array;
  cache: KvCache;
  /** Position of the first token. */
  start: number;
  /** See `ForwardOptions`. */
  slot?: ForwardOptions["slot"];
  places?: ForwardOptions["places"];
  sights?: ForwardOptions["sights"];
  findSight?: ForwardOptions["findSight"];
  logits?: ForwardOptions["logits"];
  adapters?: ForwardOptions["adapters"];
}

/** Where a pass over tokens of several sequences is sparse. */
export interface TogetherOptions {
  /** See `ForwardOptions`: those of all the sequences. */
  thresholds?: ForwardOptions["thresholds"];
  /** First row of the pass to which the thresholds apply; default 0, all. */
  sparseFromRow?: number;
}

/** What gates let through, in tokens times weights behind them. */
export interface GateCounts {
  /** What tokens would have met without gates. */
  offered: number;
  /** What they met. */
  met: number;
}

/** What a model that prunes its context remembers beside the keys and values of a cache. */
export interface HeldContext {
  /** On the host. */
  readonly byteLength: number;
  /** Slots of a layer whose tokens no later one sees. */
  dropped(layer: number): readonly number[];
  /**
   * Slots that each layer should have room for: more where a next pass does not fit, less where hardly half of them are used.
   * @param slots now @param held tokens @param rows of the next pass @param most slots of a layer
   * @returns undefined where they stay
   */
  fit(slots: readonly number[], held: readonly number[], rows: number, most: number): readonly number[] | undefined;
}

/** How a cache is made for a model. */
export interface CacheOptions {
  /** Lets a cache have more positions than the model was made for. */
  allowBeyondTraining?: boolean;
  /** Tokens held at once, by all layers or by each; default as many as there are positions. */
  slots?: number | readonly number[];
  /** Whether slots collect what attention gave them. */
  mass?: AttentionMass;
  /** How keys and values are held in fewer bits. */
  codes?: KvCodes;
}

/** Moves within one layer of a cache. `turn`: by how many positions the key of each is turned, forward or back. */
export type EntryMoves = Omit<KvMoves, "turn"> & { readonly turn?: Int32Array };

/**
 * A decoder whose weights lie on a backend. One model serves any number of sequences, each with its own cache. Disposing
 * it gives its working memory back; the weights go with the backend.
 */
export interface Model extends Disposable {
  readonly config: ModelConfig;
  readonly backend: Backend;
  readonly weights: WeightFormatId;
  /** The format of each matrix and why it was chosen; see `describeChoices`. */
  readonly choices: readonly MatrixChoice[];
  /**
   * The first NaN or infinity among the weights. Such a model loads, so that it can be looked at, and its `forward` gives what the
   * arithmetic gives; whatever makes results of it (`generate`, evaluation, measurements, calibration) throws this error.
   */
  readonly damage: FormatError | undefined;
  /** Packed bytes of all matrices a token multiplies with, and of everything loaded: those, embeddings and vectors. */
  readonly weightBytes: { perToken: number; loaded: number };
  /** Tokens must be known to the host before they are run: the embedding is stored as factors, whose rows the host makes. */
  readonly tokensOnHost?: boolean;
  /**
   * Those of passes that bring none of their own (`ForwardOptions.thresholds`): what it was loaded with. Undefined: zeros
   * that a ReLU leaves are skipped and nothing else, as they are with thresholds.
   */
  readonly thresholds: ActivationThresholds | undefined;
  /** Those of passes that name none; see `withAdapter`. */
  readonly adapters?: readonly LoadedAdapter[];
  /** Where weights are read as they are needed: by what, what is held how, and what was read since it was last asked. */
  readonly offload?: { readonly layout: OffloadLayout; readonly plan: OffloadPlan; takeCounters(): OffloadCounters };
  /** Columns of the logits: `config.vocabSize`, or the number of labels, rounded up to 4; surplus columns hold −1e30. */
  readonly logitCols: number;
  /**
   * @param capacity positions
   * @throws UsageError for more than `config.maxPositions` unless `allowBeyondTraining`.
   */
  createCache(capacity: number, options?: CacheOptions): KvCache;
  /** Moves entries of a cache of this model, which then are where the last pass left its own. */
  moveKv(cache: KvCache, layer: number, moves: EntryMoves): void;
  /**
   * A cache with room for other numbers of tokens in place of one of this model, which is disposed of.
   * @param slots of each layer @param held tokens of each layer, in its first slots
   * @throws UsageError for too few slots, codes or mass; DeviceError where it does not fit. The other one then stays.
   */
  resizeCache(cache: KvCache, slots: readonly number[], held: readonly number[]): KvCache;
  /** What gates in front of layers let through since they were last asked; left out by a model without any. */
  takeGateCounts?(): GateCounts;
  /** Undefined for a model that keeps all of its context. */
  contextOf(cache: KvCache): HeldContext | undefined;
  /**
   * Runs tokens, known or just chosen from logits, at positions start … start + tokens.length − 1 of the sequence in `cache`;
   * what it is to see of earlier ones must have been run. Enqueues; only a tap waits. Passes of different sequences may be started together: they take turns.
   * @returns logits f32 [tokens.length or 1, logitCols], owned by the caller (release it), or undefined for "none".
   * @throws UsageError for no tokens, a token outside the vocabulary, slots outside the cache, or a model that reads texts as
   * a whole.
   */
  forward(
    tokens: Uint32Array | Chosen,
    cache: KvCache,
    start: number,
    options?: ForwardOptions,
  ): Promise<Activation | undefined>;

  /**
   * Runs tokens of several sequences in one pass: the weights are read once for all of them, each attends to its own cache.
   * What a sequence gets is what `forward` gives it, but for the rounding of products of several rows.
   * @param parts sequences, no two with the same cache
   * @returns logits f32 [rows asked for, logitCols] in the order of the parts, owned by the caller; undefined where none were
   * @throws UsageError as `forward`
   */
  forwardTogether(parts: readonly SequencePart[], options?: TogetherOptions): Promise<Activation | undefined>;

  // The parts of `forward`, for block-wise work.
  /**
   * Residual stream f32 [tokens.length, hiddenSize], owned by the caller.
   * @param start position of the first token, for models that have learned positions; default 0
   * @param types of every token, for models that have them: 1 in the second of two texts; default 0
   */
  embed(tokens: Uint32Array, start?: number, types?: Uint32Array): Activation;
  /** Runs one block in place on the residual stream. */
  block(layer: number, x: Activation, cache: KvCache, start: number, options?: ForwardOptions): Promise<void>;
  /**
   * Final norm and output projection, or what classifies; logits owned by the caller.
   * @throws UsageError for a model without a head
   */
  head(x: Activation): Activation;
}

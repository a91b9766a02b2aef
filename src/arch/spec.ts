import type { ActivationFunction } from "../core/index.js";
import type { RopeSpec } from "./ropes/index.js";

/**
 * An architecture as data. A `ModelSpec` lists, for every block, the steps that its forward pass takes, the linear maps
 * in them, and the tensors of the checkpoint that hold their numbers. Whatever has to know an architecture reads this
 * list and asks `derive.ts`; nothing else knows a family by name.
 *
 * How to use it:
 * - To run or train: walk `block.steps` in order. Buffers are named by the steps; `x` is the residual stream, which
 *   enters a block and leaves it. `buffersOf(block)` gives their widths.
 * - To load, check or count: `tensorsOf(spec)`, `linearsOf(block)`; to train, `modelParameters(spec)` of `rarefy/train`.
 * - To watch or to calibrate: a linear step reads at a `Site`; thresholds are keyed by `LinearSpec.role`, statistics by
 *   `Site.id`, matrices by `LinearSpec.id`.
 * - To take units away: `unitsOf(block)` lists the maps that lose rows or columns together.
 *
 * All matrices are W [rows (out), cols (in)], y = W·x, whatever way round a file stores them.
 */
export interface ModelSpec {
  /** `model_type` of config.json: the key of its family in `families`. */
  modelType: string;
  /** Columns of the residual stream. */
  hiddenSize: number;
  vocabSize: number;
  /** Longest context the model was made for, in tokens. */
  maxPositions: number;
  bosTokenId?: number;
  /** Generation stops at any of these. */
  eosTokenIds: readonly number[];
  embedding: EmbeddingSpec;
  /** Each its own: dense first layers, layers without rotation, other windows and sizes. */
  blocks: readonly BlockSpec[];
  /** Between the last block and the head. */
  finalNorm?: NormSpec;
  head: HeadSpec;
}

/** x = norm(table[token] · scale + positions[position + offset] + types[type]), as far as those are there. */
export interface EmbeddingSpec {
  /** [vocabSize, hiddenSize] */
  table: TensorRef;
  scale?: number;
  /** Learned positions [rows, hiddenSize]; position p has row p + offset. */
  positions?: { table: TensorRef; offset: number };
  /** [types, hiddenSize]; text without types has type 0. */
  types?: TensorRef;
  norm?: NormSpec;
}

/** What makes a model's result of the residual stream: logits over a vocabulary, over labels, or nothing. */
export type HeadSpec =
  | {
      kind: "vocabulary";
      /** [vocabSize, hiddenSize]; the embedding's table where the two are tied. */
      map: LinearSpec;
      /** logits = cap · tanh(logits / cap) */
      softcap?: number;
    }
  | {
      kind: "classifier";
      /** From the residual stream of the first token, `x`, to the buffer that `map` reads. */
      steps: readonly Step[];
      from: Buffer;
      /** [labels, hiddenSize] */
      map: LinearSpec;
      /** Their names, in the order of the rows of `map`. */
      labels: readonly string[];
    }
  /** The residual stream is what a model of embeddings is for. */
  | { kind: "none" };

/** One block of a model. */
export interface BlockSpec {
  /** In order. The first reads `x`, the last leaves it changed. */
  steps: readonly Step[];
  /** Parts that not every token takes, one behind the other. */
  gates?: readonly GateSpec[];
}

/**
 * A router in front of a part of a block (adaptive gating, y = x + g(x) · f(x)): with z = map · x / √(mean(x²) + `gateEpsilon`) +
 * bias, "soft" weighs what the part adds to the residual stream x with the logistic function of z; "hard" lets a token through where
 * z > 0, and else past it: it stays as it is and, where the part attends, has no key and value there, so that no token sees it.
 */
export interface GateSpec {
  part: "block" | "attention" | "mlp";
  kind: "soft" | "hard";
  /** [1, hiddenSize], with a bias. */
  map: LinearSpec;
  /** The steps that it is about: from … to − 1. */
  from: number;
  to: number;
}

/** In front of what the gates of a block stand, and what they do. */
export interface BlockGates {
  units: "block" | "attention" | "mlp" | "sublayers";
  kind: GateSpec["kind"];
}

/** The name of a matrix [rows of the pass, width] inside a block; "x" is the residual stream. */
export type Buffer = string;

/**
 * One step of a block. `of` names what it reads, `into` what it writes, which may be the same buffer. Where `add` is set
 * the result is added to what is there.
 */
export type Step =
  | NormStep
  | LinearStep
  | RotateStep
  | JoinStep
  | AttendStep
  | ActivateStep
  | MixtureStep
  | MultiplicativeStep
  | ConvolveStep
  | ChooseStep
  | AddStep
  /** x = cap · tanh(x / cap), or x clamped to ±cap. */
  | { do: "cap"; of: Buffer; kind: "soft" | "hard"; cap: number };

/** into += of */
export interface AddStep {
  do: "add";
  of: Buffer;
  into: Buffer;
}

/** Every run of `norm.weight` columns is normalised by itself: a head at a time where the weight is as long as a head. */
export interface NormStep {
  do: "norm";
  norm: NormSpec;
  of: Buffer;
  into: Buffer;
}

/** A norm over the channels of a row, with its weights in the checkpoint. */
export interface NormSpec {
  /** "rms": x / √(mean(x²) + ε) · w; "layer": (x − mean) / √(variance + ε) · w + b. */
  kind: "rms" | "layer";
  /** Of as many entries as are normalised together. */
  weight: TensorRef;
  bias?: TensorRef;
  epsilon: number;
  /** The weight that counts is 1 + what is stored (Gemma). */
  plusOne?: true;
}

/** Linear maps that share their input; the buffers they write lie side by side in this order. */
export interface LinearStep {
  do: "linear";
  of: Buffer;
  site: Site;
  maps: readonly { map: LinearSpec; into: Buffer }[];
  /** Adds to `into` in place of writing it. */
  add?: true;
}

/** A place where activations can be seen. Taps and statistics are keyed by its id, which is unique in its block. */
export interface Site {
  id: string;
  /** Columns of what is seen there. */
  width: number;
}

/** Rotates `width` columns of every run of `every` columns, from column `first` of the run on (RoFormer, arXiv 2104.09864). */
export interface RotateStep {
  do: "rotate";
  rope: RopeSpec;
  of: readonly Buffer[];
  /** Columns of one head. */
  every: number;
  /** First rotated column of a head, and how many are rotated. */
  first: number;
  width: number;
  /** Which columns turn together: (i, i + width / 2), or (2i, 2i + 1). */
  pairs: "halves" | "neighbours";
}

/** Every head of `into` is a head of each of `of`, one behind the other; a buffer of a single head goes to all of them. */
export interface JoinStep {
  do: "join";
  heads: number;
  of: readonly { buffer: Buffer; width: number; heads: number }[];
  into: Buffer;
}

/** Grouped-query attention over this block's keys and values, to which those of the rows of the pass are appended. */
export interface AttendStep {
  do: "attend";
  q: Buffer;
  k: Buffer;
  v: Buffer;
  into: Buffer;
  /** Of queries. */
  heads: number;
  /** Heads of keys and values, and the columns of one head of each; queries are as wide as keys. */
  kv: { heads: number; k: number; v: number };
  /** Scores are multiplied by this. */
  scale: number;
  sight: SightSpec;
  /** scores = cap · tanh(scores / cap), before the mask */
  softcap?: number;
  /** [heads]: a score of every head that takes a share of its softmax and has no value. */
  sinks?: TensorRef;
  /**
   * Latent attention (DeepSeek-V2, arXiv 2405.04434): the two steps before this one made k and v of `latent`, the first columns
   * of k of each head and all of v by a linear step, and the last columns of k, those of `key`, are shared by all heads. Only
   * `latent` and `key`, which lie side by side, need be kept of a position.
   */
  latent?: { latent: Buffer; rank: number; key: Buffer; width: number };
  /** Positions that later ones no longer see, as the model was trained to tell. */
  pruning?: ContextPruning;
}

/**
 * Dynamic context pruning (arXiv 2305.15805): with q = query · of, k = key · of and r their columns, a position n drops every
 * earlier one j with q_n · k_j / √r + bias ≤ 0. It and all behind it no longer see j, with none of the heads of the layer.
 */
export interface ContextPruning {
  /** What queries are made of. */
  of: Buffer;
  /** [r, hiddenSize] each */
  query: LinearSpec;
  key: LinearSpec;
  /** [1] */
  bias: TensorRef;
}

/** Which positions a position sees: itself and all before, the last `window` of those, or all of the sequence. */
export type SightSpec = { kind: "causal" } | { kind: "window"; window: number } | { kind: "all" };

/** into = f(of), or f(of) ⊙ times where the map is gated. */
export interface ActivateStep {
  do: "activate";
  f: ActivationFunction;
  of: Buffer;
  times?: Buffer;
  into: Buffer;
  /** Where `of` can be seen, before f. */
  site?: Site;
  /** gpt-oss: `of` at most `limit`, `times` within ±limit; f(of) = of · sigmoid(sharpness · of), times (times + 1). */
  clamped?: { limit: number; sharpness: number };
}

/** into = Σ weight · expert(of) over the experts that a row is sent to. */
export interface MixtureStep {
  do: "mixture";
  of: Buffer;
  into: Buffer;
  add?: true;
  router: RouterSpec;
  /** All of one shape. Their steps read `of`, whose site is that of their first linear step, and write `out`. */
  experts: readonly ExpertSpec[];
  /** Where the outputs of experts can be seen, a row for every slot, before they are weighed. */
  site: Site;
}

/** One expert of a mixture: the steps of a small MLP. */
export interface ExpertSpec {
  steps: readonly Step[];
  out: Buffer;
}

/**
 * Dense layers that are products of two thin ones (Terraformer, arXiv 2111.12763): column s · mixes.rows + m of `into` is
 * Σ_i of[i] · scales[s, i] · mixes[m, i].
 */
export interface MultiplicativeStep {
  do: "multiplicative";
  of: Buffer;
  /** All of one shape. */
  maps: readonly {
    /** [modules, columns of `of`] */
    scales: TensorRef;
    /** [columns of `into` / modules, columns of `of`] */
    mixes: LinearSpec;
    into: Buffer;
  }[];
  /** Adds to `into` in place of writing it. */
  add?: true;
}

/**
 * Convolutions over positions, of which a position sees itself and those before it, and over modules, equal runs of columns of
 * `of`, around each (Terraformer, arXiv 2111.12763). What lies before the first position and beside the outer modules is 0.
 */
export interface ConvolveStep {
  do: "convolve";
  of: Buffer;
  /** Columns of `of`, and how many runs they are. */
  width: number;
  modules: number;
  maps: readonly {
    /**
     * [channels, length · span · channels] with channels = width / modules: columns (b · span + a) · channels … are for module
     * m + a − ⌊span / 2⌋ of the position b before.
     */
    kernel: LinearSpec;
    /** Positions and modules that it sees. */
    length: number;
    span: number;
    into: Buffer;
  }[];
}

/**
 * Of every `block` units of `of` the one stays for which a controller has the largest number, the first of equals, and the others
 * become 0 (Terraformer, arXiv 2111.12763): the numbers are up · down · from + bias.
 */
export interface ChooseStep {
  do: "choose";
  of: Buffer;
  into: Buffer;
  /** What the controller reads. */
  from: Buffer;
  block: number;
  /** [rank, columns of `from`], and [units, rank] with a bias. Neither is rounded more than it is stored. */
  controller: { down: LinearSpec; up: LinearSpec };
}

/** How experts are chosen and weighed, in the order of the fields. */
export interface RouterSpec {
  /** [experts, hiddenSize] */
  map: LinearSpec;
  /** Experts that work for one token; with "relu", where it may be any number, on average. */
  perToken: number;
  /** What makes scores of logits: over all experts, or with `choiceFirst` over the chosen. */
  score: "softmax" | "sigmoid" | "relu";
  choiceFirst?: true;
  /** [experts]: added to the scores while experts are chosen, not when they are weighed. */
  choiceBias?: TensorRef;
  /** Only the `kept` of `count` groups of experts are looked at whose two best scores add up to most. */
  groups?: { count: number; kept: number };
  /** Each of the chosen weighs as much as another: scores only choose. */
  uniform?: true;
  /** Whether the weights of the chosen are divided by their sum. */
  normalise: boolean;
  /** Multiplied with the weights. Default 1. */
  factor?: number;
  /** Weight of the loss that balanced the load when the model was trained. */
  balance?: number;
}

/** A linear map W·x (+ bias): what it is called here, where its [rows, cols] weights lie in the checkpoint, and how. */
export interface LinearSpec {
  /**
   * Unique in its block and kept for ever: masks, matrices and records of rarefy.json are keyed by it. The name of the map's
   * role, whatever the checkpoint calls it ("q_proj"); of an expert with its number ("experts.3.gate_proj").
   */
  id: string;
  /** The id without the expert: all experts of a mixture share one threshold. */
  role: string;
  rows: number;
  cols: number;
  weight: TensorRef;
  /** [rows] */
  bias?: TensorRef;
  units?: readonly Units[];
}

/** What structured pruning can take away of a map: `count` equal runs of rows or columns, together with all of `group`. */
export interface Units {
  kind: "heads" | "neurons";
  /** Maps of a block with the same group lose the same units. */
  group: string;
  axis: "rows" | "cols";
  count: number;
}

/** Where the numbers of a map or a vector lie: a whole tensor, some of its rows, one of a stack, perhaps stored [in, out]. */
export interface TensorRef {
  /** Name in the checkpoint. */
  tensor: string;
  /** Of the whole tensor, as it is stored. */
  shape: readonly number[];
  /** Rows of W (after undoing `transposed`), or entries of a vector. Default all. */
  rows?: RowPick;
  /** Stored [cols, rows]. */
  transposed?: true;
  /** Index into the first axis of a tensor of one dimension more. */
  stacked?: number;
  /** The matrix is the transpose of what the rest tells. */
  flipped?: true;
}

/** `runs` runs of `run` rows, `stride` rows apart, from `first` on. */
export interface RowPick {
  first: number;
  run: number;
  stride: number;
  runs: number;
}

/** What rarefy.json says of a block: sizes that structured pruning changes, whether it has weights of its own, and what training gave it. */
export interface BlockShape {
  queryHeads: number;
  kvHeads: number;
  intermediateSize: number;
  /** The layer before it whose weights it has too. Default: its own. */
  sharedWith?: number;
  /** Columns of the interactions that tell which positions are no longer needed. Default: all are kept. */
  contextRank?: number;
  /** Routers that let tokens through it or past it. Default: none, all take it. */
  gates?: BlockGates;
}

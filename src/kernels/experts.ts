import type { JobOptions } from "../core/index.js";
import type { PackedFormatId } from "../pack/index.js";
import type { Activation, MatrixPart } from "./handles.js";

/**
 * Which experts work for which rows, and with what weight: a slot for every pair of a row and one of its experts. It is
 * decided where the logits are, so that the host may not know it. The slots of one expert lie together, their rows ascending;
 * in what order the experts come is the backend's choice. Valid until the next `route`.
 */
export interface Routing {
  readonly rows: number;
  /** Most distinct experts that a row is sent to. */
  readonly perRow: number;
  /** `rows` × `perRow`, but where rows have a number of experts each its own. */
  readonly slotCount: number;
}

/** A routing as numbers, one of each per slot. */
export interface RoutedSlots {
  rows: Uint32Array;
  experts: Uint32Array;
  weights: Float32Array;
}

/** How many of the experts each row is sent to, and how they are weighed, in the order of the fields. */
export interface RouteOptions {
  /** Logits of a row that count, from the first on. */
  experts: number;
  /** At least 1 and at most `experts`. */
  perRow: number;
  /**
   * What makes scores of the logits: softmax over all experts, or the sigmoid or ReLU of each. With "relu" only experts with a
   * positive score are chosen, which may be none (ReMoE, arXiv 2412.14711).
   */
  score: "softmax" | "sigmoid" | "relu";
  /** f32 [experts]: added to the scores while experts are chosen, not when they are weighed (DeepSeek-V3, arXiv 2412.19437). */
  choiceBias?: Float32Array;
  /** Only the `kept` of `count` equal groups of experts are looked at whose two best scores, with bias, add up to most. */
  groups?: { readonly count: number; readonly kept: number };
  /** Every chosen expert weighs as much as another, 1 / their number. */
  uniform?: true;
  /** Whether the weights of a row are divided by their sum, so that they add up to 1. */
  normalise: boolean;
  /** Multiplied with the weights. Default 1. */
  factor?: number;
}

/** The same linear map of every expert, all of one shape and format; `parts`, `rows` and `cols` are those of one. */
export interface ExpertMatrices {
  readonly format: PackedFormatId;
  readonly experts: number;
  readonly rows: number;
  readonly cols: number;
  readonly parts: readonly MatrixPart[];
  /** Bytes of the matrices of all experts as packed. */
  readonly byteLength: number;
}

/** What experts are loaded with beside their matrices. */
export interface LoadExpertsOptions extends JobOptions {
  /** f32 [rows] of each expert, which `expertLinear` adds. */
  biases?: readonly Float32Array[];
}

/** How `expertLinear` reads its input. */
export interface ExpertLinearOptions {
  /** As in `LinearOptions`. */
  thresholds?: readonly number[];
  /** What x holds: a row for every routed row, which several experts may read, or a row for every slot. */
  from: "rows" | "slots";
}

/** Mixtures of experts: each row is multiplied with the matrices of the few experts chosen for it. */
export interface ExpertOperations {
  /**
   * The experts of every row, by the scores of its logits: the `perRow` largest (ties: the lowest expert first). A row with
   * NaN among its logits has NaN for weights. Backends may wait for what is enqueued, but for one row only where their device cannot choose among these matrices by itself.
   * @param logits f32 [rows, at least options.experts]
   */
  route(logits: Activation, options: RouteOptions): Promise<Routing>;
  /**
   * out[s] = x[row of s, or s] · W of the slot's expert (+ its bias). `out` [slots, w.rows] must not overlap `x`. Counts as one `linear`
   * of its rows for every expert that has some.
   */
  expertLinear(out: Activation, x: Activation, w: ExpertMatrices, routing: Routing, options: ExpertLinearOptions): void;
  /** out[r] += Σ weight of s · x[s] over the slots of r. out [routing.rows, cols], x [slots, cols]. */
  addExperts(out: Activation, x: Activation, routing: Routing): void;
  /**
   * A routing that was decided elsewhere, as for experts of which others lie on another machine. Slots of one expert lie
   * together, their rows ascending. Valid until the next `routeTo`; what `route` gave stays valid.
   * @param rows that slots are of
   */
  routeTo(slots: RoutedSlots, rows: number): Routing;
  /** The routing as numbers; waits for everything enqueued. */
  readRouting(routing: Routing): Promise<RoutedSlots>;
}

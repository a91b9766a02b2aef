/** How tokens find their experts while a model is trained. */
export type Routing =
  /** As its description says. */
  | "own"
  /** Softmax over all experts, the k largest (Mixtral, arXiv:2401.04088). */
  | "softmax"
  /** Sigmoid scores; the k largest of score + bias are chosen, gates are their scores brought to sum 1 (arXiv:2408.15664). */
  | "bias"
  /** ReLU of the logits, no choice of k: an expert works where its gate is above 0 (ReMoE, arXiv:2412.14711). */
  | "relu";

/** How the experts of a model are trained. */
export interface RouterOptions {
  /** Default "own". */
  routing?: Routing;
  /**
   * Scores of the chosen are brought to sum 1 ("softmax", "bias"). Without, gates are the scores themselves (Switch,
   * arXiv:2101.03961): a single expert a token has the gate 1 otherwise, and the router no gradient of the predictions.
   * Default: as the description says; with "bias" true.
   */
  normalised?: boolean;
  /** Weight of the load-balancing loss ("own", "softmax"). Default 0. */
  balance?: number;
  /** Weight of the squared log-sum-exp of router logits. Default 0. */
  zLoss?: number;
}

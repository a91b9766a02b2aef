import { activations, linear, relu, sigmoid } from "../engine/layers.js";
import {
  add,
  divide,
  greater,
  logSumExp,
  mean,
  multiply,
  range,
  reshape,
  softmax,
  split,
  square,
  stopGradient,
  sum,
  sumOfRows,
  type Traced,
  where,
} from "../engine/ops.js";
import type { TracedArrays } from "../engine/tracedObjective.js";
import type { MoeConfig, Routing } from "./moeConfig.js";
import { biasName, sparsityWeightName } from "./routerNames.js";

/** How the linear maps of an expert are done; by default as in Mixtral. */
export interface ExpertOptions {
  activate?: (x: Traced) => Traced;
  /** What a linear map sees of its input: all of it. */
  cut?: (x: Traced) => Traced;
}

export interface MoeOutput {
  /** [tokens, hiddenSize] */
  output: Traced;
  /** Scalar, to be added to the loss. */
  penalty: Traced;
  /** f32 [experts]: tokens that chose each. */
  load: Traced;
}

/**
 * A mixture of experts over x [tokens, hiddenSize], with the tensors of a Mixtral checkpoint. Every expert is evaluated for
 * every token and multiplied by its gate, which is exact and costs experts / expertsPerToken times a dispatched one.
 */
export function mixture(
  x: Traced,
  w: TracedArrays,
  at: string,
  layer: number,
  batch: TracedArrays,
  moe: MoeConfig,
  { activate = activations.silu!, cut = (x) => x }: ExpertOptions = {},
): MoeOutput {
  const logits = linear(x, w[`${at}.gate.weight`]);
  const { gates, chosen, penalty } = routers[moe.routing](logits, layer, batch, moe);
  const columns = split(gates, moe.experts, 1);
  const seen = cut(x);
  let output: Traced | undefined;
  for (let e = 0; e < moe.experts; e++) {
    const expert = `${at}.experts.${e}`;
    const hidden = multiply(activate(linear(seen, w[`${expert}.w1.weight`])), linear(seen, w[`${expert}.w3.weight`]));
    const part = multiply(linear(cut(hidden), w[`${expert}.w2.weight`]), columns[e]);
    output = output === undefined ? part : add(output, part);
  }
  const zLoss = moe.zLoss ? multiply(mean(square(logSumExp(logits))), moe.zLoss) : multiply(sum(logits), 0);
  return { output: output!, penalty: add(penalty, zLoss), load: sum(chosen, 0) };
}

interface Routed {
  /** [tokens, experts]; 0 for experts that were not chosen. */
  gates: Traced;
  /** [tokens, experts], 0 or 1, no gradient. */
  chosen: Traced;
  penalty: Traced;
}

const routers: Record<Routing, (logits: Traced, layer: number, batch: TracedArrays, moe: MoeConfig) => Routed> = {
  softmax(logits, _layer, _batch, moe) {
    const scores = softmax(logits);
    const chosen = largest(scores, moe.expertsPerToken);
    return {
      gates: gatesOf(scores, chosen, moe),
      chosen,
      penalty: multiply(balanceLoss(scores, chosen, moe), moe.balance ?? 0),
    };
  },
  bias(logits, layer, batch, moe) {
    const scores = sigmoid(logits);
    const chosen = largest(add(scores, batch[biasName(layer)]), moe.expertsPerToken);
    return { gates: gatesOf(scores, chosen, moe), chosen, penalty: multiply(sum(logits), 0) };
  },
  relu(logits, _layer, batch, moe) {
    const gates = relu(logits);
    const chosen = stopGradient(where(greater(gates, 0), 1, 0));
    return { gates, chosen, penalty: multiply(balanceLoss(gates, chosen, moe), batch[sparsityWeightName]) };
  },
};

function gatesOf(scores: Traced, chosen: Traced, { normalised = true }: MoeConfig): Traced {
  const masked = multiply(scores, chosen);
  return normalised ? divide(masked, sumOfRows(masked)) : masked;
}

/** 0/1 for the k largest of each row, the first of equals; no gradient. By rank, so that k may be any without a sort. */
function largest(scores: Traced, k: number): Traced {
  const [rows, count] = scores.shape;
  const fixed = stopGradient(scores);
  const own = reshape(fixed, [rows, count, 1]);
  const other = reshape(fixed, [rows, 1, count]);
  const position = reshape(range(count), [1, 1, count]);
  const earlier = greater(reshape(range(count), [1, count, 1]), position);
  const ahead = where(greater(other, own), 1, where(earlier, where(greater(own, other), 0, 1), 0));
  return stopGradient(where(greater(k, sum(ahead, 2)), 1, 0));
}

/** E/(k·T²)·Σₑ (Σₜ score)·nₑ: 1 at perfect balance of softmax scores. The counts nₑ carry no gradient. */
function balanceLoss(scores: Traced, chosen: Traced, { experts, expertsPerToken }: MoeConfig): Traced {
  const [tokens] = scores.shape;
  const factor = experts / (expertsPerToken * tokens * tokens);
  return multiply(sum(multiply(sum(scores, 0), stopGradient(sum(chosen, 0)))), factor);
}

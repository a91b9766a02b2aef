import { numpy as np } from "@jax-js/jax";
import type { Step } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import { type HeadArrays, largestPositions, memberAttention, sortedAttention } from "../engine/blockAttention.js";
import { linear } from "../engine/layers.js";
import {
  add,
  concatenate,
  divide,
  equal,
  exp,
  greater,
  logSumExp,
  matmul,
  meanOfRows,
  multiply,
  range,
  reshape,
  softmax,
  sqrt,
  square,
  stopGradient,
  subtract,
  sum,
  sumOfRows,
  type Traced,
  transpose,
  where,
} from "../engine/ops.js";
import {
  type ClusterKind,
  type ClusterPlan,
  centroidsName,
  clusterPlan,
  clusterWeightNames,
} from "../models/clusterOptions.js";
import type { BlockPass } from "./pass.js";

type AttendStep = Extract<Step, { do: "attend" }>;

/** Heads of a block that form clusters, and all that they may be formed by. */
interface Clustered {
  heads: HeadArrays;
  /** Queries and keys before they were turned by their positions; what a token is, not where. */
  unturned: { q: Traced; k: Traced };
  plan: ClusterPlan;
  scale: number;
  causal: boolean;
  /** f32 [batch, positions]; see `BlockOptions`. */
  real?: Traced;
  block: BlockPass;
}

/** Each kind, for heads [batch, heads, positions, width]. */
const kinds: Readonly<Record<ClusterKind, (clustered: Clustered) => Traced>> = { routing, nearest, clusterformer };

/**
 * Attention of which no head compares all tokens with all.
 * @param read a buffer as [sequences, positions, heads, width]
 * @returns [rows, heads · width of a value]
 * @throws UsageError for attention that has groups, sinks, caps or windows
 */
export function clusteredAttention(
  { q, k, v, kv, heads, scale, sight, softcap, sinks, pruning }: AttendStep,
  block: BlockPass,
  read: (name: string, width: number) => Traced,
): Traced {
  const { pass, layer } = block;
  const others = [softcap, sinks, pruning].some((more) => more !== undefined);
  if (kv.heads !== heads || others || sight.kind === "window") {
    throw new UsageError(
      "attention by clusters is not defined for heads that share keys, for sinks, caps, windows and pruned contexts",
    );
  }
  const plan = clusterPlan(pass.options.clusters!, pass.window, heads);
  const { localHeads, sharedKeys, size, firstBlock } = plan;
  const local = layer < firstBlock ? heads : localHeads;
  /** Heads first … end − 1, [sequences, heads, positions, width]. */
  const some = (name: string, width: number, first: number, end: number) =>
    transpose(headRange(read(name, width), first, end), [0, 2, 1, 3]);
  const causal = sight.kind === "causal";
  const { real } = pass;
  const parts: Traced[] = [];
  if (local > 0) {
    const near = { q: some(q, kv.k, 0, local), k: some(k, kv.k, 0, local), v: some(v, kv.v, 0, local) };
    parts.push(sortedAttention(near, { scale, causal, notSelf: false, real, size, reach: "near" }));
  }
  if (local < heads) {
    const keys = sharedKeys ? q : k;
    const rest = (name: string, width: number) => some(name, width, local, heads);
    const unturned = (name: string) => {
      const before = unturnedName(name);
      return rest(block.buffers.has(before) ? before : name, kv.k);
    };
    parts.push(
      kinds[plan.kind]({
        heads: { q: rest(q, kv.k), k: rest(keys, kv.k), v: rest(v, kv.v) },
        unturned: { q: unturned(q), k: unturned(keys) },
        ...{ plan, scale, causal, real, block },
      }),
    );
  }
  const mixed = parts.length === 1 ? parts[0] : concatenate(parts, 1);
  return reshape(transpose(mixed, [0, 2, 1, 3]), [pass.rows, heads * kv.v]);
}

/** The buffer that holds queries or keys as they were before `rotate`. */
export const unturnedName = (name: string): string => `${name}, unturned`;

function routing({ heads, unturned, plan, scale, causal, real, block }: Clustered): Traced {
  const centroids = centroidsOf(block);
  const [q, k] = recorded(unturned, centroids, plan, real, block);
  const positionsOf = (likeness: Traced) => largestPositions(likeness, plan.size);
  const queries = positionsOf(q);
  const members = { queries, keys: plan.sharedKeys ? queries : positionsOf(k) };
  return memberAttention(heads, members, { scale, causal, notSelf: plan.sharedKeys, real });
}

function nearest({ heads, unturned, plan, scale, causal, real, block }: Clustered): Traced {
  const centroids = centroidsOf(block);
  const [q, k] = recorded(unturned, centroids, plan, real, block);
  // One cluster for a token as what asks and what is asked for, or no order would put both together.
  const likeness = plan.sharedKeys ? q : add(q, k);
  const clusters = largestOf(transpose(likeness, [0, 1, 3, 2]));
  const { size, sharedKeys: notSelf } = plan;
  return sortedAttention(heads, { scale, causal, notSelf, real, size, reach: "near", clusters, within: true });
}

function clusterformer({ heads, plan, scale, causal, real, block: { pass, layer, buffers } }: Clustered): Traced {
  const { sequences, window, weights } = pass;
  const names = clusterWeightNames(layer);
  const centroids = weights[names.centroids];
  if (centroids === undefined) throw new UsageError(`${names.centroids} is not among the parameters`);
  const x = buffers.get("x")!;
  const width = x.shape[1];
  const tokens = reshape(x, [sequences, window, width]);
  const projected = reshape(linear(x, weights[names.projection]), [sequences, window, width]);
  const filling = real && reshape(where(greater(real, 0), 0, -1e9), [sequences, 1, window]);
  /** [sequences, clusters, window] for centroids [sequences or 1, clusters, width]. */
  const relation = (c: Traced) => {
    const products = multiply(matmul(c, transpose(projected, [0, 2, 1])), 1 / Math.sqrt(width));
    return filling === undefined ? products : add(products, filling);
  };
  const first = reshape(centroids, [1, plan.clusters, width]);
  let affinity: Traced;
  if (causal) {
    // Neither a sum over the text nor its softmax: both know what comes later.
    affinity = relation(unit(first));
  } else {
    const moved = unit(add(matmul(softmax(relation(first)), tokens), first));
    const second = relation(moved);
    affinity = subtract(second, reshape(logSumExp(second), [sequences, plan.clusters, 1]));
  }
  const byToken = transpose(affinity, [0, 2, 1]);
  const clusters = largestOf(byToken);
  const mixed = sortedAttention(heads, {
    ...{ scale, causal, notSelf: plan.sharedKeys, real, size: plan.size },
    reach: causal ? "near" : plan.neighbours ? "neighbours" : "block",
    clusters: reshape(clusters, [sequences, 1, window]),
    within: causal,
  });
  return multiply(mixed, reshape(confidence(byToken, clusters), [sequences, 1, window, 1]));
}

/**
 * 1 for every token, with the gradient of the logarithm of the share that its cluster has among all. Sorting passes no gradient; through this
 * the loss tells the clustering which choices served it, and nothing is computed otherwise than without it.
 * @param affinity [sequences, window, clusters] @param clusters [sequences, window]
 */
function confidence(affinity: Traced, clusters: Traced): Traced {
  const count = affinity.shape[2];
  const isChosen = equal(reshape(clusters, [...clusters.shape, 1]), range(count));
  const logShare = subtract(sum(where(isChosen, affinity, 0), 2), logSumExp(affinity));
  return exp(subtract(logShare, stopGradient(logShare)));
}

function centroidsOf({ pass, layer }: BlockPass): Traced {
  const found = pass.batch[centroidsName(layer)];
  if (found === undefined)
    throw new UsageError(`the batch holds no ${centroidsName(layer)}; give it those of centroidControl`);
  return found;
}

/**
 * How like each token is to each centroid, [batch, heads, clusters, positions] for queries and for keys; what came to each centroid is
 * noted in the pass.
 */
function recorded(
  { q, k }: { q: Traced; k: Traced },
  centroids: Traced,
  { clusters, sharedKeys }: ClusterPlan,
  real: Traced | undefined,
  { pass, layer }: BlockPass,
): [q: Traced, k: Traced] {
  const filling = real && reshape(where(greater(real, 0), 0, -1e9), [real.shape[0], 1, 1, real.shape[1]]);
  const sums: Traced[] = [];
  const counts: Traced[] = [];
  const likeness = (x: Traced) => {
    const direction = stopGradient(unit(subtract(x, meanOfRows(x))));
    const products = matmul(reshape(centroids, [1, ...centroids.shape]), transpose(direction, [0, 1, 3, 2]));
    const masked = filling === undefined ? products : add(products, filling);
    const nearest = largestOf(transpose(masked, [0, 1, 3, 2]));
    const [batch, heads, positions] = nearest.shape;
    const belongs = where(
      equal(reshape(nearest, [batch, heads, 1, positions]), reshape(range(clusters), [clusters, 1])),
      1,
      0,
    );
    const counted = real === undefined ? belongs : multiply(belongs, reshape(real, [batch, 1, 1, positions]));
    sums.push(sum(matmul(counted, direction), 0));
    counts.push(sum(counted, [0, 3]));
    return masked;
  };
  const ofQueries = likeness(q);
  const ofKeys = sharedKeys ? ofQueries : likeness(k);
  pass.members.push({ block: layer, sums: stopGradient(sums.reduce(add)), counts: stopGradient(counts.reduce(add)) });
  return [ofQueries, ofKeys];
}

/** f32 [..]: which of the last axis is the largest, the first of equals; no gradient. */
const largestOf = (x: Traced): Traced => np.argmax(stopGradient(x), -1).astype(x.dtype);

/** Brought to length 1 over the last axis. */
const unit = (x: Traced): Traced => divide(x, sqrt(add(sumOfRows(square(x)), 1e-12)));

/** Heads of x [sequences, positions, heads, width]. */
const headRange = (x: Traced, first: number, end: number): Traced =>
  first === 0 && end === x.shape[2] ? x : x.ref.slice([], [], [first, end]);

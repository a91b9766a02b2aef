import type { ClusterPlan } from "../../src/train/models/clusterOptions.js";

/** Arrays of one layer, in f64, as a test writes them down: [batch][head][position][column]. */
export type Heads = number[][][][];

export interface LayerInputs {
  q: Heads;
  k: Heads;
  v: Heads;
  /** [batch][position][column], for ClusterFormer. */
  x: number[][][];
  /** [head][cluster][column]: of moving ones. */
  moving: number[][][];
  /** C [cluster][column] and Wᶜ [out][in] of ClusterFormer. */
  centroids: number[][];
  projection: number[][];
  /** [batch][position] */
  real: boolean[][];
}

export interface LayerOptions {
  plan: ClusterPlan;
  causal: boolean;
  scale: number;
}

const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const unit = (x: readonly number[]) => x.map((value) => value / Math.sqrt(dot(x, x) + 1e-12));
const centred = (x: readonly number[]) => x.map((value) => value - x.reduce((a, b) => a + b) / x.length);
const logSumExp = (x: readonly number[]) => {
  const most = Math.max(...x);
  return most + Math.log(x.reduce((sum, value) => sum + Math.exp(value - most), 0));
};
/** The first of the largest. */
const argmax = (x: readonly number[]) => x.indexOf(Math.max(...x));

/** Full softmax attention of one head, of which `sees` says what counts; 0 where nothing does. */
function maskedAttention(
  q: number[][],
  k: number[][],
  v: number[][],
  { scale, notSelf }: { scale: number; notSelf: boolean },
  sees: (i: number, j: number) => boolean,
): number[][] {
  return q.map((query, i) => {
    let seen = k.flatMap((_, j) => (sees(i, j) ? [j] : []));
    if (notSelf && seen.some((j) => j !== i)) seen = seen.filter((j) => j !== i);
    if (seen.length === 0) return v[0].map(() => 0);
    const scores = seen.map((j) => scale * dot(query, k[j]));
    const total = logSumExp(scores);
    return v[0].map((_, c) => seen.reduce((sum, j, s) => sum + Math.exp(scores[s] - total) * v[j][c], 0));
  });
}

/** Rank of every token where all are sorted by `clusters`, equal ones by position; those filled up last. */
function ranks(clusters: readonly number[], real: readonly boolean[]): number[] {
  const order = clusters.map((_, i) => i);
  const key = (i: number) => (real[i] ? clusters[i] : Number.POSITIVE_INFINITY);
  order.sort((a, b) => (key(a) === key(b) ? a - b : key(a) < key(b) ? -1 : 1));
  const rank = new Array<number>(order.length);
  for (const [r, i] of order.entries()) rank[i] = r;
  return rank;
}

/** Positions of the `size` tokens most like a centroid; filled-up places only where there are no others. */
function mostAlike(rows: number[][], centroid: number[], real: readonly boolean[], size: number): number[] {
  const likeness = rows.map((row, i) => (real[i] ? dot(unit(centred(row)), centroid) : Number.NEGATIVE_INFINITY));
  const order = rows.map((_, i) => i).sort((a, b) => likeness[b] - likeness[a] || a - b);
  return order.slice(0, size);
}

/** What ClusterFormer's equations say of a text: affinity of each token to each cluster, [position][cluster]. */
export function affinities(
  {
    x,
    centroids,
    projection,
    real,
  }: Pick<LayerInputs, "centroids" | "projection"> & {
    x: number[][];
    real: readonly boolean[];
  },
  causal: boolean,
): number[][] {
  const width = x[0].length;
  const projected = x.map((token) => projection.map((row) => dot(row, token)));
  const relation = (c: number[]) =>
    projected.map((p, j) => (real[j] ? dot(c, p) / Math.sqrt(width) : Number.NEGATIVE_INFINITY));
  const byCluster = centroids.map((c) => {
    if (causal) return relation(unit(c));
    const scores = relation(c);
    const total = logSumExp(scores);
    const moved = unit(
      c.map((value, d) => value + x.reduce((sum, token, j) => sum + Math.exp(scores[j] - total) * token[d], 0)),
    );
    const again = relation(moved);
    const all = logSumExp(again);
    return again.map((score) => score - all);
  });
  return x.map((_, j) => byCluster.map((scores) => scores[j]));
}

/** The logarithm of the share that the cluster of each token has: what the gradient of the clustering goes through. */
export const logShares = (affinity: number[][]): number[] => affinity.map((row) => row[argmax(row)] - logSumExp(row));

/**
 * One layer of attention by clusters, every pair of tokens looked at: [batch][head][position][column].
 * @param held log-shares of ClusterFormer at the point where the gradient is taken, [batch][position]
 */
export function clusteredOracle(inputs: LayerInputs, options: LayerOptions, held?: number[][]): Heads {
  const { plan, causal, scale } = options;
  const { size, clusters, localHeads, kind, sharedKeys, neighbours } = plan;
  return inputs.q.map((heads, b) => {
    const real = inputs.real[b];
    const only = (sees: (i: number, j: number) => boolean) => (i: number, j: number) =>
      real[i] && real[j] && sees(i, j);
    const isNear = (from: readonly number[]) => (i: number, j: number) => {
      const behind = from[i] - from[j];
      return Math.abs(behind) < size && (!causal || behind >= 0);
    };
    const affinity = affinities({ ...inputs, x: inputs.x[b], real }, causal);
    const chosen = affinity.map(argmax);
    const factor = held && logShares(affinity).map((share, j) => Math.exp(share - held[b][j]));
    return heads.map((q, h) => {
      const isLocal = h < localHeads;
      const notSelf = sharedKeys && !isLocal;
      const k = notSelf ? q : inputs.k[b][h];
      const v = inputs.v[b][h];
      const attend = (sees: (i: number, j: number) => boolean) =>
        maskedAttention(q, k, v, { scale, notSelf }, only(sees));
      if (isLocal) return attend(isNear(q.map((_, i) => i)));
      if (kind === "clusterformer") {
        const rank = ranks(chosen, real);
        const block = (i: number) => Math.floor(rank[i] / size);
        const within = causal
          ? (i: number, j: number) => chosen[i] === chosen[j] && isNear(rank)(i, j)
          : (i: number, j: number) => Math.abs(block(i) - block(j)) <= (neighbours ? 1 : 0);
        return attend(within).map((row, i) => row.map((value) => value * (real[i] ? (factor?.[i] ?? 1) : 0)));
      }
      const moving = inputs.moving[h - localHeads];
      if (kind === "nearest") {
        const like = (row: number[]) => moving.map((centroid) => dot(unit(centred(row)), centroid));
        const own = q.map((row, i) => {
          const [a, c] = [like(row), like(k[i])];
          return argmax(sharedKeys ? a : a.map((value, m) => value + c[m]));
        });
        const rank = ranks(own, real);
        return attend((i, j) => own[i] === own[j] && isNear(rank)(i, j));
      }
      const sums = q.map(() => v[0].map(() => 0));
      const counts = q.map(() => 0);
      for (let c = 0; c < clusters; c++) {
        const queries = new Set(mostAlike(q, moving[c], real, size));
        const keys = new Set(mostAlike(k, moving[c], real, size));
        const sees = only((i, j) => queries.has(i) && keys.has(j) && (!causal || j <= i));
        const out = maskedAttention(q, k, v, { scale, notSelf }, sees);
        for (const i of queries) {
          if (!k.some((_, j) => sees(i, j))) continue;
          counts[i]++;
          for (const [d, value] of out[i].entries()) sums[i][d] += value;
        }
      }
      return sums.map((row, i) => row.map((value) => value / Math.max(1, counts[i])));
    });
  });
}

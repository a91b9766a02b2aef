import { numpy as np } from "@jax-js/jax";
import {
  add,
  argsort,
  columns,
  concatenate,
  divide,
  equal,
  greater,
  matmul,
  maximum,
  multiply,
  negate,
  range,
  reshape,
  settled,
  softmax,
  type Traced,
  takeRows,
  transpose,
  where,
} from "./ops.js";

/** Added to the score of a key that is not seen. */
const unseen = -1e9;
/** Added to that of a token itself where it is seen only if nothing else is. */
const lastResort = -1e5;

/** Queries, keys and values of some heads: [batch, heads, positions, width] each. */
export interface HeadArrays {
  q: Traced;
  k: Traced;
  v: Traced;
}

/** What both ways of attending in blocks are told. */
interface BlockOptions {
  /** What scores are multiplied by. */
  scale: number;
  causal: boolean;
  /** A token sees itself only where it sees nothing else. */
  notSelf: boolean;
  /** f32 [batch, positions]: 1, or 0 where a text is only filled up: nothing sees that place, and it gives 0. */
  real?: Traced;
}

/** How sorted tokens see each other. */
export interface SortedOptions extends BlockOptions {
  /** Tokens of a block; divides the positions. */
  size: number;
  /**
   * "block": a block sees itself. "neighbours": and the blocks on both sides. "near": a token sees those less than `size` ranks away,
   * on both sides or, in a causal model, before it.
   */
  reach: "block" | "neighbours" | "near";
  /** f32 [batch, heads or 1, positions]: tokens are sorted by these numbers, equal ones by their position. Left out, by position. */
  clusters?: Traced;
  /** Only tokens of the same cluster are seen. */
  within?: boolean;
}

/**
 * Attention of tokens in the order of their clusters, block by block: positions · (1 to 3) · size scores. Causal only `within` clusters,
 * or without any, where ranks rise with positions.
 * @returns [batch, heads, positions, width of v], in the order of the text
 */
export function sortedAttention({ q, k, v }: HeadArrays, options: SortedOptions): Traced {
  const { clusters, real, size, scale } = options;
  const [batch, heads, positions, width] = q.shape;
  const blocks = positions / size;
  // Filled-up places come last, so that they lie in no block that has room for a token.
  const key = clusters && real ? where(greater(expandHeads(real), 0), clusters, positions) : clusters;
  const order = key && argsort(key);
  const sorted = (x: Traced) => (order === undefined ? x : takeTokens(x, order));
  const cut = (x: Traced) => reshape(x, [batch, x.shape[1], blocks, size, x.shape[3]]);
  const seen = beside(options);

  // One gather for all three, and one scatter in its gradient.
  const joined = cut(sorted(concatenate([q, k, v], 3)));
  const queries = columns(joined, 0, width);
  const others = withBeside(columns(joined, width, joined.shape[4]), seen);
  const scores = matmul(queries, transpose(columns(others, 0, width), [0, 1, 2, 4, 3]));

  const mask = np.array(rankMask(blocks, seen, options), { shape: [blocks, size, seen.length * size] });
  const masks = [mask];
  if (real !== undefined) {
    const flags = cut(sorted(expandAll(real, order?.shape[1] ?? 1)));
    masks.push(asKeys(where(greater(flags, 0), 0, unseen), seen));
  }
  if (key !== undefined && options.within) {
    const own = cut(sorted(columnOf(key)));
    masks.push(where(equal(own, asKeys(own, seen)), 0, unseen));
  }
  const shares = softmax(masks.reduce(add, multiply(scores, scale)));
  const mixed = matmul(shares, columns(others, width, others.shape[4]));
  const all = reshape(mixed, [batch, heads, positions, v.shape[3]]);
  const back = order === undefined ? all : takeTokens(all, argsort(order));
  return real === undefined ? back : multiply(back, columnOf(expandHeads(real)));
}

/** Which tokens each cluster has: int32 [batch, heads, clusters, size], their positions, rising. */
export interface Members {
  queries: Traced;
  keys: Traced;
}

/**
 * Attention within clusters that may overlap and leave tokens out: a token that several have gets their mean, one that none has 0.
 * positions · size scores.
 * @returns [batch, heads, positions, width of v]
 */
export function memberAttention({ q, k, v }: HeadArrays, members: Members, options: BlockOptions): Traced {
  const { scale, causal, notSelf, real } = options;
  const [batch, heads, positions, width] = q.shape;
  const [, , clusters, size] = members.queries.shape;
  const cut = (x: Traced) => reshape(x, [batch, heads, clusters, size, -1]);
  const flat = (indices: Traced) => reshape(indices, [batch, heads, clusters * size]);
  const taken = (x: Traced, indices: Traced) => cut(takeTokens(x, flat(indices)));

  const isShared = members.queries === members.keys;
  const joined = isShared ? taken(concatenate([q, k, v], 3), members.queries) : undefined;
  const queries = joined ? columns(joined, 0, width) : taken(q, members.queries);
  const others = joined ? columns(joined, width, joined.shape[4]) : taken(concatenate([k, v], 3), members.keys);
  const scores = matmul(queries, transpose(columns(others, 0, width), [0, 1, 2, 4, 3]));

  const [row, column] = [reshape(members.queries, [batch, heads, clusters, size, 1]), asRow(members.keys)];
  const masks: Traced[] = [];
  if (causal) masks.push(where(greater(column, row), unseen, 0));
  if (notSelf) masks.push(where(equal(column, row), lastResort, 0));
  if (real !== undefined) {
    const flags = takeTokens(expandAll(real, heads), flat(members.keys));
    masks.push(where(greater(asRow(reshape(flags, members.keys.shape)), 0), 0, unseen));
  }
  const masked = masks.reduce(add, multiply(scores, scale));
  const mixed = matmul(softmax(masked), columns(others, width, others.shape[4]));

  // 0 for a query that sees none of the keys, and for a place that is only filled up.
  const sees = where(greater(np.max(masked.ref, 4, { keepdims: true }), unseen / 2), 1, 0);
  const weight =
    real === undefined ? sees : multiply(sees, cut(takeTokens(expandAll(real, heads), flat(members.queries))));
  const slots = concatenate([multiply(mixed, weight), weight], 4);
  const sums = sumsOfTokens(
    reshape(slots, [batch, heads, clusters * size, slots.shape[4]]),
    flat(members.queries),
    positions,
    clusters,
  );
  const wide = v.shape[3];
  return divide(columns(sums, 0, wide), maximum(columns(sums, wide, wide + 1), 1));
}

/** int32 [.., size]: the positions of the `size` largest of each row, rising; the first of equals. No gradient. */
export function largestPositions(scores: Traced, size: number): Traced {
  return np.sort(settled(columns(argsort(negate(scores)), 0, size)), -1);
}

/**
 * [batch, heads, positions, width]: for every token the sum of the slots that are its own, which are at most `most`; 0 where there are
 * none. The engine has no scatter but in gradients, so a marker for every token is sorted together with the slots, each marker before the
 * slots of its token, and sums are gathered at the markers in ⌈log₂(most + 1)⌉ steps, each over twice the distance of the last.
 * @param slots [batch, heads, count, width] @param tokens int32 [batch, heads, count]
 */
function sumsOfTokens(slots: Traced, tokens: Traced, positions: number, most: number): Traced {
  const [batch, heads, , width] = slots.shape;
  const all = [batch, heads, positions];
  const markers = add(reshape(range(positions), [1, 1, positions]), np.zeros(all, { dtype: np.int32 }));
  const names = concatenate([markers, tokens], 2);
  const order = argsort(names);
  const own = np.sort(settled(names), -1);
  let sums = takeTokens(concatenate([np.zeros([...all, width], { dtype: slots.dtype }), slots], 2), order);
  for (let distance = 1; distance <= most; distance *= 2) {
    const isSame = reshape(equal(own, ahead(own, distance, -1)), [...own.shape, 1]);
    sums = add(sums, where(isSame, ahead(sums, distance, 0), 0));
  }
  return takeTokens(sums, columns(argsort(order), 0, positions));
}

/** x [batch, heads, count, ..] with what lies `distance` further along the third axis, `end` behind the last. */
function ahead(x: Traced, distance: number, end: number): Traced {
  const [batch, heads, count, ...rest] = x.shape;
  const length = Math.min(distance, count);
  const nothing = np.full([batch, heads, length, ...rest], end, { dtype: x.dtype });
  return length === count ? nothing : concatenate([x.ref.slice([], [], [length, count]), nothing], 2);
}

/** [batch, heads, count, width]: tokens of x [batch, heads, positions, width] by number, int32 [batch, heads or 1, count]. */
function takeTokens(x: Traced, indices: Traced): Traced {
  const [batch, heads, positions, width] = x.shape;
  const all = indices.shape[1] === heads ? indices : add(indices, np.zeros([1, heads, 1], { dtype: np.int32 }));
  const rows = takeRows(reshape(x, [batch * heads * positions, width]), flatIndices(all, positions));
  return reshape(rows, [batch, heads, indices.shape[2], width]);
}

/** Numbers of rows of [batch · heads · positions] for those of tokens, int32 [batch, heads, count]. */
function flatIndices(indices: Traced, positions: number): Traced {
  const [batch, heads] = indices.shape;
  const first = multiply(reshape(range(batch * heads), [batch, heads, 1]), positions);
  return reshape(add(indices, first), [-1]);
}

/** Blocks that each block sees, by distance. */
function beside({ reach, causal }: SortedOptions): readonly number[] {
  if (reach === "block") return [0];
  return causal ? [-1, 0] : [-1, 0, 1];
}

/** [batch, heads, blocks, distances · size, width]: each block of x with those beside it; zeros where there is none. */
function withBeside(x: Traced, seen: readonly number[]): Traced {
  if (seen.length === 1) return x;
  const [batch, heads, blocks, size, width] = x.shape;
  if (blocks === 1) {
    const none = multiply(x, 0);
    return concatenate(
      seen.map((distance) => (distance === 0 ? x : none)),
      3,
    );
  }
  const none = np.zeros([batch, heads, 1, size, width], { dtype: x.dtype });
  const part = (first: number, end: number) => x.ref.slice([], [], [first, end]);
  const shifted = (distance: number) => {
    if (distance === 0) return x;
    return concatenate(distance < 0 ? [none, part(0, blocks - 1)] : [part(1, blocks), none], 2);
  };
  return concatenate(seen.map(shifted), 3);
}

/** [batch, heads, blocks, 1, distances · size] of what every token has one of, [batch, heads, blocks, size, 1]. */
const asKeys = (x: Traced, seen: readonly number[]): Traced => transpose(withBeside(x, seen), [0, 1, 2, 4, 3]);
const asRow = (x: Traced): Traced => reshape(x, [...x.shape.slice(0, 3), 1, x.shape[3]]);
const columnOf = (x: Traced): Traced => reshape(x, [...x.shape, 1]);
/** [batch, 1, positions] of [batch, positions]. */
const expandHeads = (x: Traced): Traced => reshape(x, [x.shape[0], 1, x.shape[1]]);
/** [batch, heads, positions, 1] of [batch, positions]. */
const expandAll = (x: Traced, heads: number): Traced =>
  add(reshape(x, [x.shape[0], 1, x.shape[1], 1]), np.zeros([1, heads, 1, 1], { dtype: x.dtype }));

/** What is added to scores for the ranks of query and key alone: f32 [blocks, size, distances · size]. */
function rankMask(
  blocks: number,
  seen: readonly number[],
  { size, reach, causal, notSelf }: SortedOptions,
): Float32Array<ArrayBuffer> {
  const mask = new Float32Array(blocks * size * seen.length * size);
  let at = 0;
  for (let block = 0; block < blocks; block++) {
    for (let i = 0; i < size; i++) {
      for (const distance of seen) {
        for (let j = 0; j < size; j++) {
          const behind = i - j - distance * size;
          const isThere = block + distance >= 0 && block + distance < blocks;
          const isNear = reach !== "near" || Math.abs(behind) < size;
          const isSeen = isThere && isNear && (!causal || behind >= 0);
          mask[at++] = !isSeen ? unseen : notSelf && behind === 0 ? lastResort : 0;
        }
      }
    }
  }
  return mask;
}

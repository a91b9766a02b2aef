import { kernel, read, readWrite } from "../kernel.js";
import { putHalves, type TensorShape } from "./matmulTensor.js";

export interface AttentionTile {
  keyDim: number;
  valueDim: number;
  /** Keys in workgroup memory at a time, a multiple of 32. */
  keys: number;
}

/** Query rows of a workgroup, pairs of a token and a query head that share a key head, and those of one subgroup. */
export const tensorQueries = 64;
const teamQueries = 16;
const threads = (32 * tensorQueries) / teamQueries;

/** Distances between rows in workgroup memory, in f16, of scores in fours of f32: multiples of 16 bytes, but not of the banks. */
const tilePitch = ({ keyDim, valueDim }: AttentionTile) => Math.max(keyDim, valueDim) + 8;
const scorePitch = ({ keys }: AttentionTile) => keys / 4 + 1;
const weightPitch = ({ keys }: AttentionTile) => keys + 8;

/** Bytes of workgroup memory that a shape takes. */
export const attentionTensorBytes = (tile: AttentionTile): number =>
  2 * Math.max(tensorQueries, tile.keys) * tilePitch(tile) +
  tensorQueries * (16 * scorePitch(tile) + 2 * weightPitch(tile));

/** Keys and values are multiplied with 1/16 before they become f16, so that up to a million they do not overflow. */
const range = 16;
/** Weights, which are at most 1, are multiplied with this: without it those of keys that count little would be lost in f16. */
const weightRange = 16384;

/**
 * `attention` of many rows over a cache of f32 on the matrix units of a GPU, which multiply f16 and sum in f32: queries,
 * keys, values and the weights of the softmax are rounded to f16.
 *
 * Matrix units do not show which row an element of a result belongs to, so that sums cannot be rescaled when a larger score
 * comes (Dao et al. 2022). A first walk over the keys finds the largest score of every row; a second one makes the scores
 * again, and from them the weights and the weighted values.
 */
export const attentionTensor = ({ M, N, K }: TensorShape, shape: AttentionTile, sunk: boolean) => {
  const { keyDim, valueDim, keys } = shape;
  const pitch = tilePitch(shape);
  const [scores, weights] = [scorePitch(shape), weightPitch(shape)];
  const down = teamQueries / M;
  const times = (count: number, line: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => line(i)).join("\n    ");
  // What a thread brings of a tile of `rows` × `cols` numbers, by eights, which are given as two expressions of four.
  const eightsOf = (rows: number, cols: number) => Math.ceil((rows * cols) / 8 / threads);
  const rowOf = (cols: number, i: number) => `((t + ${i * threads}u) / ${cols / 8}u)`;
  const quadOf = (cols: number, i: number, q: number) => `((t + ${i * threads}u) % ${cols / 8}u * 2u + ${q}u)`;
  const store = (cols: number, i: number, four: (q: number) => string) =>
    `{ let at = ${rowOf(cols, i)} * ${pitch}u + (t + ${i * threads}u) % ${cols / 8}u * 8u; ${[0, 1].map((q) => putHalves("tile", `at + ${4 * q}u`, `vec4<f16>(${four(q)})`)).join(" ")} }`;
  const isInside = (rows: number, cols: number, i: number) =>
    (i + 1) * threads * 8 > rows * cols ? `if (t + ${i * threads}u < ${(rows * cols) / 8}u) ` : "";
  const queryOf = (i: number, q: number) =>
    `queryFour(min(firstQuery + ${rowOf(keyDim, i)}, queryRows - 1u), kvHead, ${quadOf(keyDim, i, q)})`;
  const fillQueries = times(
    eightsOf(tensorQueries, keyDim),
    (i) => `${isInside(tensorQueries, keyDim, i)}${store(keyDim, i, (q) => queryOf(i, q))}`,
  );
  /** Of keys or values, in `brought`: on their way from `first` on, or into the tile. */
  const most = Math.max(eightsOf(keys, keyDim), eightsOf(keys, valueDim));
  const bring = (name: string, cols: number, first: string) =>
    times(eightsOf(keys, cols), (i) =>
      times(
        2,
        (q) =>
          `brought${i}_${q} = ${name}[(min(${first} + ${rowOf(cols, i)}, end - 1u) * p.kvHeads + kvHead) * ${cols / 4}u + ${quadOf(cols, i, q)}];`,
      ),
    );
  const put = (cols: number) =>
    times(
      eightsOf(keys, cols),
      (i) => `${isInside(keys, cols, i)}${store(cols, i, (q) => `brought${i}_${q} * ${1 / range}`)}`,
    );
  // Of a subgroup's rows × the tile's keys, left in memory for its own threads.
  const makeScores = times(
    keys / N,
    (j) => `{
      ${times(down, (i) => `var sum${i} = subgroup_matrix_result<f32, ${N}, ${M}>();`)}
      ${times(
        keyDim / K,
        (k) => `{
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, ${N}, ${K}>, col_major>(&tile, ${j * N * pitch + k * K}u, ${pitch}u);
        ${times(down, (i) => `sum${i} = subgroupMatrixMultiplyAccumulate(query${i}_${k}, right, sum${i});`)}
      }`,
      )}
      ${times(down, (i) => `subgroupMatrixStore<row_major>(&products, ownScores + ${i * M * scores + (j * N) / 4}u, sum${i}, ${scores}u);`)}
    }`,
  );
  /** What both walks do with the keys that were brought. */
  const scoreTile = /* wgsl */ `
    workgroupBarrier();
    ${put(keyDim)}
    workgroupBarrier();
    ${makeScores}`;
  // Two threads look after a row; each takes every other run of 16 keys.
  const eachRun = (line: (run: number) => string) => times(keys / 32, line);
  const scoreOf = (run: number, q: number) =>
    `score(products[ownScores + row * ${scores}u + half * 4u + ${8 * run + q}u], first + half * 16u + ${32 * run + 4 * q}u, end, own)`;
  const findHighest = eachRun((run) =>
    times(4, (q) => `{ let s = ${scoreOf(run, q)}; highest = max(highest, max(max(s.x, s.y), max(s.z, s.w))); }`),
  );
  const weighKeys = eachRun((run) =>
    times(
      2,
      (e) => `{
      let low = weightOf(${scoreOf(run, 2 * e)}, highest);
      let high = weightOf(${scoreOf(run, 2 * e + 1)}, highest);
      length += dot(low + high, vec4<f32>(1.0));
      let at = ownWeights + row * ${weights}u + half * 16u + ${32 * run + 8 * e}u;
      ${putHalves("weights", "at", `vec4<f16>(low * ${weightRange}.0)`)}
      ${putHalves("weights", "at + 4u", `vec4<f16>(high * ${weightRange}.0)`)}
    }`,
    ),
  );
  const addValues = times(
    keys / K,
    (k) => `{
      ${times(down, (i) => `let left${i} = subgroupMatrixLoad<subgroup_matrix_left<f16, ${K}, ${M}>, row_major>(&weights, ownWeights + ${i * M * weights + k * K}u, ${weights}u);`)}
      ${times(
        valueDim / N,
        (j) => `{
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, ${N}, ${K}>, row_major>(&tile, ${k * K * pitch + j * N}u, ${pitch}u);
        ${times(down, (i) => `acc${i}_${j} = subgroupMatrixMultiplyAccumulate(left${i}, right, acc${i}_${j});`)}
      }`,
      )}
    }`,
  );
  // As many columns of the sums at a time as there is room for.
  const columns = Math.min(keys, valueDim);
  const write = times(
    valueDim / columns,
    (part) => `
    workgroupBarrier();
    ${times(down, (i) =>
      times(
        columns / N,
        (j) =>
          `subgroupMatrixStore<row_major>(&products, ownScores + ${i * M * scores + (j * N) / 4}u, acc${i}_${(part * columns) / N + j}, ${scores}u);`,
      ),
    )}
    workgroupBarrier();
    for (var i = 0u; i < ${(teamQueries * columns) / 128}u; i += 1u) {
      let e = i * 32u + lane;
      let r = e / ${columns / 4}u;
      let four = products[ownScores + r * ${scores}u + e % ${columns / 4}u] * subgroupShuffle(share, 2u * r);
      let j = firstOwn + r;
      let at = p.outOffset + j / p.group * p.outStride + (kvHead * p.group + j % p.group) * ${valueDim}u + ${part * columns}u + e % ${columns / 4}u * 4u;
      if (j < queryRows) {
        outs[at] = four.x;
        outs[at + 1u] = four.y;
        outs[at + 2u] = four.z;
        outs[at + 3u] = four.w;
      }
    }`,
  );
  return kernel({
    name: `attention ${keyDim} ${valueDim} on ${M}×${N}×${K}, ${keys}${sunk ? " sunk" : ""}`,
    enable: ["f16", "subgroups", "chromium_experimental_subgroup_matrix"],
    // That `team` is the same for a whole subgroup is more than the compiler can see.
    unchecked: ["chromium.subgroup_matrix_uniformity"],
    params: {
      qOffset: "u32",
      qStride: "u32",
      outOffset: "u32",
      outStride: "u32",
      tokens: "u32",
      start: "u32",
      window: "u32",
      causal: "u32",
      kvHeads: "u32",
      group: "u32",
      scale: "f32",
      /** 0: none. */
      softcap: "f32",
    },
    buffers: {
      outs: readWrite(),
      qs: read(),
      cachedKeys: read("vec4<f32>"),
      cachedValues: read("vec4<f32>"),
      sinks: read(),
    },
    code: /* wgsl */ `
const NONE = -3.0e38;
/** First queries, then keys and values in turn. */
var<workgroup> tile: array<f16, ${Math.max(tensorQueries, keys) * pitch}>;
var<workgroup> products: array<vec4<f32>, ${tensorQueries * scores}>;
var<workgroup> weights: array<f16, ${tensorQueries * weights}>;

@compute @workgroup_size(${threads})
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_index) t: u32,
) {
  let kvHead = workgroup.y;
  let queryRows = p.tokens * p.group;
  // The last rows see most: they begin first.
  let firstQuery = (workgroups.x - 1u - workgroup.x) * ${tensorQueries}u;
  let lane = t % 32u;
  let team = t / 32u;
  let row = lane / 2u;
  let half = lane % 2u;
  let firstOwn = firstQuery + team * ${teamQueries}u;
  let query = min(firstOwn + row, queryRows - 1u);
  let ownScores = team * ${teamQueries * scores}u;
  let ownWeights = team * ${teamQueries * weights}u;
  // Up to which slot the thread's row sees, and the slots that any row of this workgroup sees.
  let own = p.start + select(p.tokens - 1u, query / p.group, p.causal == 1u);
  let lastToken = select(p.tokens - 1u, min(firstQuery + ${tensorQueries - 1}u, queryRows - 1u) / p.group, p.causal == 1u);
  let begin = max(p.start + firstQuery / p.group + 1u, p.window) - p.window;
  let end = p.start + lastToken + 1u;

  ${fillQueries}
  workgroupBarrier();
  ${times(down, (i) =>
    times(
      keyDim / K,
      (k) =>
        `let query${i}_${k} = subgroupMatrixLoad<subgroup_matrix_left<f16, ${K}, ${M}>, row_major>(&tile, (team * ${teamQueries}u + ${i * M}u) * ${pitch}u + ${k * K}u, ${pitch}u);`,
    ),
  )}
  ${times(most, (i) => times(2, (q) => `var brought${i}_${q} = vec4<f32>();`))}
  var highest = NONE;
  // What is needed next is on its way meanwhile.
  ${bring("cachedKeys", keyDim, "begin")}
  for (var first = begin; first < end; first += ${keys}u) {
    ${scoreTile}
    ${bring("cachedKeys", keyDim, `first + ${keys}u`)}
    workgroupBarrier();
    ${findHighest}
  }
  highest = max(highest, subgroupShuffleXor(highest, 1u));
  ${
    sunk
      ? /* wgsl */ `
  // The sink is a first key whose value is 0.
  let sink = sinks[kvHead * p.group + query % p.group];
  highest = max(highest, sink);
  var length = select(0.0, exp(sink - highest), half == 0u);`
      : "var length = 0.0;"
  }

  ${times(down, (i) => times(valueDim / N, (j) => `var acc${i}_${j} = subgroup_matrix_result<f32, ${N}, ${M}>();`))}
  ${bring("cachedKeys", keyDim, "begin")}
  for (var first = begin; first < end; first += ${keys}u) {
    ${scoreTile}
    ${bring("cachedValues", valueDim, "first")}
    workgroupBarrier();
    ${weighKeys}
    ${put(valueDim)}
    workgroupBarrier();
    ${bring("cachedKeys", keyDim, `first + ${keys}u`)}
    ${addValues}
  }
  length += subgroupShuffleXor(length, 1u);
  let share = select(${range / weightRange} / length, 0.0, length == 0.0);
  ${write}
}

fn queryFour(j: u32, kvHead: u32, quad: u32) -> vec4<f32> {
  let at = p.qOffset + j / p.group * p.qStride + (kvHead * p.group + j % p.group) * ${keyDim}u + quad * 4u;
  return vec4<f32>(qs[at], qs[at + 1u], qs[at + 2u], qs[at + 3u]) * p.scale;
}

/** The scores of four keys, from slot \`slot\` on; NONE where they are not visible. */
fn score(product: vec4<f32>, slot: u32, end: u32, own: u32) -> vec4<f32> {
  var scaled = product * ${range}.0;
  if (p.softcap > 0.0) { scaled = p.softcap * tanh(clamp(scaled / p.softcap, vec4<f32>(-15.0), vec4<f32>(15.0))); }
  let slots = vec4<u32>(slot, slot + 1u, slot + 2u, slot + 3u);
  let visible = (slots < vec4<u32>(end)) & (slots <= vec4<u32>(own)) & (slots + vec4<u32>(p.window) > vec4<u32>(own));
  return select(vec4<f32>(NONE), scaled, visible);
}

fn weightOf(scores: vec4<f32>, highest: f32) -> vec4<f32> {
  return select(exp(scores - vec4<f32>(highest)), vec4<f32>(), scores == vec4<f32>(NONE));
}`,
  });
};

import type { KvCodes } from "../../kvCodes.js";
import { rowsOfGroup, slotsOfBlock } from "../../sight.js";
import { kernel, read, readWrite } from "../kernel.js";
import { mergeRow, mostRuns, takenRuns } from "./attentionRuns.js";
import { wordOf } from "./blockMask.js";
import { exchangeFunctions } from "./exchange.js";
import { codedParams, codedReads, codesName } from "./kvCodes.js";

export interface AttentionShape {
  keyDim: number;
  valueDim: number;
  /** Whether a value is the first columns of its key. */
  valueInKey: boolean;
  /** Query rows of one workgroup: pairs of a token and a query head that share a key head. */
  queries: number;
  /** Keys in workgroup memory at a time. */
  keys: number;
}

/** Bytes of workgroup memory that a shape takes. */
export const attentionBytes = ({ keyDim, valueDim, queries, keys }: AttentionShape): number =>
  4 *
  (queries * keyDim +
    keys * (keyDim + 4) +
    2 * queries * keys +
    3 * queries +
    2 * threadsFor(sliceOf(valueDim)) +
    2 * mostRuns);

const threadsFor = (valueCols: number) => (valueCols > 128 ? 256 : 128);

/** Workgroups that share the columns of wide values; each makes the scores for itself. */
export const valueSlices = (valueDim: number): number => Math.ceil(valueDim / 256);
const sliceOf = (valueDim: number) => Math.ceil(valueDim / valueSlices(valueDim));

export const runKinds = ["one", "joined", "apart"] as const;

export interface AttentionVariant {
  /** Whether there are several runs; they are joined by the workgroup that comes last, or stay apart for `attentionMerge`. */
  runs?: (typeof runKinds)[number];
  /**
   * Whether q, one token, is still to be rotated, and k and v of its slot are in `ks` and `vs`, k not rotated either: the
   * workgroup whose run reaches that slot puts them into the cache before it reads them.
   */
  rotated?: boolean;
  /** Whether the key blocks are those that `sight` lists, see `blockMaskWords`; a run is then one of listed blocks. */
  listed?: boolean;
  /** Whether `sinks` have a share of each softmax. */
  sunk?: boolean;
  /** What the cache holds instead of f32; not with `rotated`. */
  codes?: KvCodes;
}

/**
 * Flash attention (Dao et al. 2022): one workgroup takes `queries` query rows of one key head and one run of keys, walks
 * the keys in tiles and keeps, per query row, the running maximum m, the sum l of exp(score − m) and the weighted values.
 * With one run of keys it writes the mean; with several the states of all are joined, see `mergeRow`. Through `exchange` (a
 * ticket for every block of query rows and key head, then the sums and the states) they go to the workgroup that comes last.
 */
export const attention = (shape: AttentionShape, { runs = "one", rotated, listed, sunk, codes }: AttentionVariant) => {
  const { keyDim, valueDim, valueInKey, queries, keys } = shape;
  const slices = valueSlices(valueDim);
  const valueCols = sliceOf(valueDim);
  const threads = threadsFor(valueCols);
  const quads = keyDim / 4;
  const scores = queries * keys;
  // Where there are fewer scores than threads, several threads share the dot product of one.
  const shares = Math.max(1, Math.floor(threads / scores));
  // Threads that look after the softmax of one query row. Each finds the maximum and the sum by itself: no waiting.
  const team = Math.floor(threads / queries);
  // Each thread owns one dimension of the values; threads beyond them take other keys of the tile.
  const keyGroups = Math.max(1, Math.floor(threads / valueCols));
  const quadOf = (name: string, at: string) =>
    `vec4<f32>(${name}[${at}], ${name}[${at} + 1u], ${name}[${at} + 2u], ${name}[${at} + 3u])`;
  const half = quads / 2;
  const loadQuery = /* wgsl */ `
  for (var i = t; i < ${queries * quads}u; i += ${threads}u) {
    let j = min(firstQuery + i / ${quads}u, queryRows - 1u);
    let at = p.qOffset + j / p.group * p.qStride + (kvHead * p.group + j % p.group) * ${keyDim}u + i % ${quads}u * 4u;
    query[i] = ${quadOf("qs", "at")};
  }`;
  /** Cosines and sines of the angles of quad `d`, for it and for the quad half a head further on. */
  const angles = (d: string) => /* wgsl */ `
    let angle = p.position * ${keyDim / 2}u + ${d} * 4u;
    let c = ${quadOf("cosines", "angle")};
    let s = ${quadOf("sines", "angle")};`;
  const loadRotatedQuery = /* wgsl */ `
  for (var i = t; i < ${queries * half}u; i += ${threads}u) {
    let j = min(i / ${half}u, queryRows - 1u);
    let d = i % ${half}u;
    let at = p.qOffset + (kvHead * p.group + j) * ${keyDim}u + d * 4u;
    ${angles("d")}
    let a = ${quadOf("qs", "at")};
    let b = ${quadOf("qs", `at + ${keyDim / 2}u`)};
    query[i / ${half}u * ${quads}u + d] = a * c - b * s;
    query[i / ${half}u * ${quads}u + ${half}u + d] = b * c + a * s;
  }`;
  const each = (line: (j: number) => string) => Array.from({ length: queries }, (_, j) => line(j)).join("\n    ");
  // Slots that are in the cache already: all that a row sees, but for the one that the kernel itself brings there.
  const lastCached = rotated ? "max(p.start, 1u) - 1u" : "end - 1u";
  // A thread's shares of a tile of keys, so written that all their loads are under way together.
  const keyLoads = (line: (i: number) => string) =>
    Array.from({ length: Math.ceil((keys * quads) / threads) }, (_, i) => line(i)).join("\n    ");
  const keyOf = (i: number) => `((t + ${i * threads}u) / ${quads}u)`;
  const quadOfKey = (i: number) => `((t + ${i * threads}u) % ${quads}u)`;
  const isLoaded = (i: number) =>
    [
      ...((i + 1) * threads > keys * quads ? [`(t + ${i * threads}u < ${keys * quads}u)`] : []),
      ...(rotated ? [`(tile + ${keyOf(i)} < p.start)`] : []),
    ].join(" & ") || "true";
  const loadNewest = /* wgsl */ `
  let newest = vs[p.vOffset + kvHead * ${valueDim}u + dimension];
  if (begin <= p.start && end == p.start + 1u && t < ${valueDim}u) {
    cachedValues[(p.start * p.kvHeads + kvHead) * ${valueDim}u + t] = newest;
  }`;
  const rotateNewest = /* wgsl */ `
    if (end == p.start + 1u && p.start - tile < ${keys}u) {
      for (var d = t; d < ${half}u; d += ${threads}u) {
        let at = p.kOffset + kvHead * ${keyDim}u + d * 4u;
        ${angles("d")}
        let a = ${quadOf("ks", "at")};
        let b = ${quadOf("ks", `at + ${keyDim / 2}u`)};
        let low = a * c - b * s;
        let high = b * c + a * s;
        let row = (p.start - tile) * ${quads + 1}u;
        keyTile[row + d] = low;
        keyTile[row + ${half}u + d] = high;
        let head = (p.start * p.kvHeads + kvHead) * ${quads}u;
        cachedKeys[head + d] = low;
        cachedKeys[head + ${half}u + d] = high;
      }
    }`;
  // Weights of many rows lie side by side, since a thread takes those of a key together.
  const weightAt = (row: string, k: string) =>
    queries > 4 ? `${k} * ${queries}u + ${row}` : `${row} * ${keys}u + ${k}`;
  /** Up to which slot a row sees, or of a block mask a bit for every key of the tile that it sees. */
  const ownOf = (row: string) =>
    listed
      ? `wordOf(mask, min(firstQuery + ${row}, queryRows - 1u), kvHead) >> (tile % ${slotsOfBlock}u)`
      : `p.start + select(p.tokens - 1u, min(firstQuery + ${row}, queryRows - 1u) / p.group, p.causal == 1u)`;
  const rowsOfThread = Math.floor(scores / threads);
  const rowOfThread = (i: number) => `(t / ${keys}u + ${(i * threads) / keys}u)`;
  const ofRows = (line: (i: number) => string) =>
    Array.from({ length: rowsOfThread }, (_, i) => line(i)).join("\n    ");
  /** A thread makes the scores of one key, for several rows, with one read of the key. */
  const wholeScores = /* wgsl */ `
    let ownKey = t % ${keys}u;
    ${ofRows((i) => `var product${i} = vec4<f32>();`)}
    for (var d = 0u; d < ${quads}u; d += 1u) {
      let keyQuad = keyTile[ownKey * ${quads + 1}u + d];
      ${ofRows((i) => `product${i} = fma(query[${rowOfThread(i)} * ${quads}u + d], keyQuad, product${i});`)}
    }
    ${ofRows((i) => `products[${rowOfThread(i)} * ${keys}u + ownKey] = score(dot(product${i}, vec4<f32>(1.0)), ownKey, tile + ownKey, end, ${ownOf(rowOfThread(i))});`)}`;
  const sharedScores = /* wgsl */ `
    for (var i = t; i < ${scores * shares}u; i += ${threads}u) {
      let j = i / ${shares}u / ${keys}u;
      let k = i / ${shares}u % ${keys}u;
      var product = vec4<f32>();
      for (var d = i % ${shares}u; d < ${quads}u; d += ${shares}u) {
        product = fma(query[j * ${quads}u + d], keyTile[k * ${quads + 1}u + d], product);
      }
      products[i] = dot(product, vec4<f32>(1.0));
    }
    let own = ${ownOf("row")};`;
  const scoreAt = (k: string) =>
    shares === 1 ? `products[row * ${keys}u + ${k}]` : `score(productOf(row, ${k}), ${k}, tile + ${k}, end, own)`;
  const valueRounds = Math.ceil(keys / keyGroups);
  const valueAt = (k: string) => {
    const slot = `min(tile + ${k}, ${lastCached})`;
    const at = `(${slot} * p.kvHeads + kvHead)`;
    const plain = valueInKey
      ? `cachedKeys[${at} * ${quads}u + dimension / 4u][dimension % 4u]`
      : `cachedValues[${at} * ${valueDim}u + dimension]`;
    const cached = codes === undefined ? plain : `${valueInKey ? "keyOne" : "valueOne"}(${slot}, kvHead, dimension)`;
    return rotated ? `select(${cached}, newest, tile + ${k} >= p.start)` : cached;
  };
  /** Adds a value, of the key at `i` beyond the thread's first, to all rows; a tile may have fewer keys than rounds. */
  const addValue = (i: string, value: string) => {
    const add = each((j) => `acc${j} = fma(weights[${weightAt(`${j}u`, `(keyGroup + ${i})`)}], ${value}, acc${j});`);
    return keys % keyGroups === 0 ? add : `if (keyGroup + ${i} < ${keys}u) { ${add} }`;
  };
  const ownRun = /* wgsl */ `
  // Slots that the rows of this workgroup can see, cut to its run.
  let lastToken = select(p.tokens - 1u, min(firstQuery + ${queries - 1}u, queryRows - 1u) / p.group, p.causal == 1u);
  let seenFrom = max(p.start + firstToken + 1u, p.window) - p.window;
  let begin = seenFrom + run * p.keysPerRun;
  let end = min(p.start + lastToken + 1u, begin + p.keysPerRun);`;
  const listedRun = /* wgsl */ `
  // Listed blocks of the rows of this workgroup, cut to its run.
  let list = p.listsAt + firstToken / ${rowsOfGroup}u;
  let begin = sight[list] + run * p.keysPerRun;
  let runEnd = min(sight[list + 1u], begin + p.keysPerRun);
  let end = p.slots;`;
  const listedTiles = /* wgsl */ `
  for (var listed = begin; listed < runEnd; listed += 1u) {
    let block = sight[p.blocksAt + 2u * listed];
    let mask = sight[p.blocksAt + 2u * listed + 1u];
    var any = 0u;
    for (var j = 0u; j < ${queries}u; j += 1u) { any |= wordOf(mask, min(firstQuery + j, queryRows - 1u), kvHead); }
    // What none of these rows sees is not read.
    if (any == 0u) { continue; }
    let blockEnd = min(block * ${slotsOfBlock}u + ${slotsOfBlock}u, end);
    for (var tile = block * ${slotsOfBlock}u; tile < blockEnd; tile += ${keys}u) {`;
  // Where few rows need few registers, values are on their way while the scores are made.
  const early = queries <= 4;
  const variant = [
    ...(runs === "one" ? [] : [` runs ${runs}`]),
    ...(rotated ? [" rotated"] : []),
    ...(listed ? [" listed"] : []),
    ...(sunk ? [" sunk"] : []),
    ...(codes === undefined ? [] : [` ${codesName(codes)}`]),
  ].join("");
  const keyAt = (i: number) => {
    const slot = `min(tile + ${keyOf(i)}, ${lastCached})`;
    return codes === undefined
      ? `cachedKeys[(${slot} * p.kvHeads + kvHead) * ${quads}u + ${quadOfKey(i)}]`
      : `keyFour(${slot}, kvHead, ${quadOfKey(i)})`;
  };
  const entries = (type: "f32" | "vec4<f32>") => {
    if (codes !== undefined) return read("u32");
    return rotated ? readWrite(type) : read(type);
  };
  const put = {
    one: "outs[p.outOffset + token * p.outStride + head * VALUE_DIM + d] = select(value / l, 0.0, l == 0.0);",
    joined: /* wgsl */ `
  leave(p.sumsAt + at * VALUE_DIM + d, value);
  if (d == 0u) {
    leave(p.statesAt + 2u * at, m);
    leave(p.statesAt + 2u * at + 1u, l);
  }`,
    apart: /* wgsl */ `
  outs[at * VALUE_DIM + d] = value;
  if (d == 0u) {
    exchange[2u * at] = m;
    exchange[2u * at + 1u] = l;
  }`,
  }[runs];
  const join = /* wgsl */ `
  // All threads have left their numbers before the ticket is taken.
  storageBarrier();
  if (t == 0u) { isLast = select(0u, 1u, comesLast(workgroup.x * p.kvHeads + kvHead, p.runs * ${slices}u)); }
  if (workgroupUniformLoad(&isLast) == 0u) { return; }
  for (var j = firstQuery; j < min(firstQuery + ${queries}u, queryRows); j += 1u) {
    let head = kvHead * p.group + j % p.group;
    let token = j / p.group;
    mergeRow(token * p.kvHeads * p.group + head, p.tokens * p.kvHeads * p.group, p.outOffset + token * p.outStride + head * VALUE_DIM, t);
  }`;
  return kernel({
    name: `attention ${keyDim} ${valueDim}${valueInKey ? " in key" : ""} ${queries} ${keys}${variant}`,
    params: {
      qOffset: "u32",
      qStride: "u32",
      outOffset: "u32",
      outStride: "u32",
      tokens: "u32",
      runs: "u32",
      /** Where sums and states begin in `exchange`. */
      sumsAt: "u32",
      statesAt: "u32",
      start: "u32",
      window: "u32",
      causal: "u32",
      kvHeads: "u32",
      group: "u32",
      keysPerRun: "u32",
      scale: "f32",
      /** 0: none. */
      softcap: "f32",
      kOffset: "u32",
      vOffset: "u32",
      position: "u32",
      slots: "u32",
      listsAt: "u32",
      tables: "u32",
      blocksAt: "u32",
      bitsAt: "u32",
      ...codedParams,
      keyScalesAt: "u32",
      keyRingAt: "u32",
      valueScalesAt: "u32",
      valueRingAt: "u32",
    },
    buffers: {
      outs: readWrite(),
      qs: read(),
      cachedKeys: entries("vec4<f32>"),
      cachedValues: entries("f32"),
      /** Runs that are joined leave everything there, others their states. */
      exchange: readWrite(runs === "joined" ? "atomic<u32>" : "f32"),
      ks: read(),
      vs: read(),
      cosines: read(),
      sines: read(),
      sight: read("u32"),
      sinks: read(),
    },
    code: /* wgsl */ `
const NONE = -3.0e38;
var<workgroup> query: array<vec4<f32>, ${queries * quads}>;
var<workgroup> keyTile: array<vec4<f32>, ${keys * (quads + 1)}>;
var<workgroup> products: array<f32, ${scores * shares}>;
var<workgroup> weights: array<f32, ${scores}>;
var<workgroup> maxima: array<f32, ${queries}>;
var<workgroup> lengths: array<f32, ${queries}>;
var<workgroup> rescale: array<f32, ${queries}>;

@compute @workgroup_size(${threads})
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_index) t: u32,
) {
  let kvHead = workgroup.y;
  let run = workgroup.z / ${slices}u;
  let queryRows = p.tokens * p.group;
  // The last rows see most: they begin first.
  let firstQuery = (workgroups.x - 1u - workgroup.x) * ${queries}u;
  ${rotated ? loadRotatedQuery : loadQuery}

  let firstToken = firstQuery / p.group;
  ${listed ? listedRun : ownRun}

  let dimension = workgroup.z % ${slices}u * ${valueCols}u + t % ${valueCols}u;
  ${rotated ? loadNewest : ""}
  let keyGroup = t / ${valueCols}u;
  let row = t / ${team}u;
  ${
    sunk
      ? /* wgsl */ `
  // The sink is a first key of the first run, whose value is 0.
  let sink = sinks[kvHead * p.group + min(firstQuery + row, queryRows - 1u) % p.group];
  var highest = select(NONE, sink, run == 0u);
  var length = select(0.0, 1.0, run == 0u);`
      : /* wgsl */ `
  var highest = NONE;
  var length = 0.0;`
  }
  ${each((j) => `var acc${j} = 0.0;`)}

  ${listed ? listedTiles : `for (var tile = begin; tile < end; tile += ${keys}u) {`}
    workgroupBarrier();
    ${keyLoads((i) => `let key${i} = ${keyAt(i)};`)}
    ${keyLoads((i) => `if (${isLoaded(i)}) { keyTile[${keyOf(i)} * ${quads + 1}u + ${quadOfKey(i)}] = key${i}; }`)}
    ${rotated ? rotateNewest : ""}
    ${early ? Array.from({ length: valueRounds }, (_, i) => `let value${i} = ${valueAt(`keyGroup + ${i * keyGroups}u`)};`).join("\n    ") : ""}
    workgroupBarrier();
    ${shares === 1 ? wholeScores : sharedScores}
    workgroupBarrier();
    if (row < ${queries}u) {
      let before = highest;
      for (var k = 0u; k < ${keys}u; k += 1u) { highest = max(highest, ${scoreAt("k")}); }
      for (var k = t % ${team}u; k < ${keys}u; k += ${team}u) {
        let s = ${scoreAt("k")};
        weights[${weightAt("row", "k")}] = select(exp(s - highest), 0.0, s == NONE);
      }
      let shrink = select(exp(before - highest), 0.0, before == NONE);
      length *= shrink;
      if (t % ${team}u == 0u) { rescale[row] = shrink; }
    }
    workgroupBarrier();
    if (row < ${queries}u) {
      for (var k = 0u; k < ${keys}u; k += 1u) { length += weights[${weightAt("row", "k")}]; }
    }
    if (keyGroup < ${keyGroups}u) {
      ${each((j) => `acc${j} *= rescale[${j}];`)}
      // As many rounds for every tile, so that their loads can be under way together; keys past the end have weight 0.
      ${
        early
          ? Array.from({ length: valueRounds }, (_, i) => addValue(`${i * keyGroups}u`, `value${i}`)).join("\n      ")
          : `for (var i = 0u; i < ${valueRounds * keyGroups}u; i += ${keyGroups}u) { let value = ${valueAt("keyGroup + i")}; ${addValue("i", "value")} }`
      }
    }
  }${listed ? " }" : ""}
  if (row < ${queries}u && t % ${team}u == 0u) {
    maxima[row] = highest;
    lengths[row] = length;
  }

  ${
    keyGroups === 1
      ? ""
      : each(
          (j) => /* wgsl */ `
    workgroupBarrier();
    if (keyGroup < ${keyGroups}u) { partial[t] = acc${j}; }
    workgroupBarrier();
    acc${j} = 0.0;
    for (var k = 0u; k < ${keyGroups}u; k += 1u) { acc${j} += partial[k * ${valueCols}u + t % ${valueCols}u]; }`,
        )
  }
  workgroupBarrier();
  if (t < ${valueCols}u && dimension < ${valueDim}u) {
    ${each((j) => `write(firstQuery + ${j}u, queryRows, kvHead, run, dimension, acc${j}, maxima[${j}], lengths[${j}]);`)}
  }
  ${runs === "joined" ? join : ""}
}
const VALUE_DIM = ${valueDim}u;
${runs === "joined" ? `var<workgroup> isLast: u32;${exchangeFunctions}${mergeRow(threads, takenRuns)}` : ""}
${keyGroups === 1 ? "" : `var<workgroup> partial: array<f32, ${threads}>;`}

${
  listed
    ? "/** The score of a key for a query row, of which own has a bit for every key it sees; NONE where it is not visible. */"
    : "/** The score of a key for a query row that sees up to slot own; NONE where it is not visible. */"
}
fn score(product: f32, k: u32, slot: u32, end: u32, own: u32) -> f32 {
  let visible = slot < end && ${listed ? "(own & (1u << k)) != 0u" : "slot <= own && slot + p.window > own"};
  var scaled = product * p.scale;
  if (p.softcap > 0.0) { scaled = p.softcap * tanh(clamp(scaled / p.softcap, -15.0, 15.0)); }
  return select(NONE, scaled, visible);
}
${
  shares === 1
    ? ""
    : /* wgsl */ `
fn productOf(row: u32, k: u32) -> f32 {
  var product = 0.0;
  for (var s = 0u; s < ${shares}u; s += 1u) { product += products[(row * ${keys}u + k) * ${shares}u + s]; }
  return product;
}`
}
${listed ? wordOf : ""}
${codes === undefined ? "" : codedReads("key", "cachedKeys", codes, keyDim) + (valueInKey ? "" : codedReads("value", "cachedValues", codes, valueDim))}

fn write(j: u32, queryRows: u32, kvHead: u32, run: u32, d: u32, value: f32, m: f32, l: f32) {
  if (j >= queryRows) { return; }
  let head = kvHead * p.group + j % p.group;
  let token = j / p.group;
  let at = (run * p.tokens + token) * p.kvHeads * p.group + head;
  ${put}
}`,
  });
};

import type { KvCodes } from "../../kvCodes.js";
import { rowsOfGroup, slotsOfBlock } from "../../sight.js";
import { kernel, read, readWrite } from "../kernel.js";
import { wordOf } from "./blockMask.js";
import { entry } from "./elementwise.js";
import { codedParams, codedReads, codesName } from "./kvCodes.js";

/** Rows of k and v to their slots in the cache; one thread per element of the wider of them. */
export const appendKv = kernel({
  name: "appendKv",
  params: {
    keyCols: "u32",
    valueCols: "u32",
    kOffset: "u32",
    kStride: "u32",
    vOffset: "u32",
    vStride: "u32",
    start: "u32",
  },
  buffers: { ks: read(), vs: read(), keys: readWrite(), values: readWrite() },
  code: entry(/* wgsl */ `
  if (i < p.keyCols) { keys[(p.start + row) * p.keyCols + i] = ks[p.kOffset + row * p.kStride + i]; }
  if (i < p.valueCols) { values[(p.start + row) * p.valueCols + i] = vs[p.vOffset + row * p.vStride + i]; }`),
});

/**
 * `rope` of q in place, of k into the cache, and v into the cache beside it: one thread per pair of q, of k, and two
 * elements of v.
 */
export const ropeAppend = kernel({
  name: "ropeAppend",
  params: {
    queryPairs: "u32",
    keyPairs: "u32",
    valuePairs: "u32",
    half: "u32",
    qOffset: "u32",
    qStride: "u32",
    kOffset: "u32",
    kStride: "u32",
    vOffset: "u32",
    vStride: "u32",
    start: "u32",
    position: "u32",
  },
  buffers: {
    qs: readWrite(),
    ks: read(),
    vs: read(),
    cosines: read(),
    sines: read(),
    keys: readWrite(),
    values: readWrite(),
  },
  code: entry(/* wgsl */ `
  if (i >= p.queryPairs + p.keyPairs) {
    let element = 2u * (i - p.queryPairs - p.keyPairs);
    if (element < 2u * p.valuePairs) {
      let cached = (p.start + row) * p.valuePairs * 2u;
      values[cached + element] = vs[p.vOffset + row * p.vStride + element];
      values[cached + element + 1u] = vs[p.vOffset + row * p.vStride + element + 1u];
    }
    return;
  }
  let cached = (p.start + row) * p.keyPairs * 2u;
  let isKey = i >= p.queryPairs;
  let pair = select(i, i - p.queryPairs, isKey);
  let angle = (p.position + row) * p.half + pair % p.half;
  let c = cosines[angle];
  let s = sines[angle];
  let first = pair / p.half * 2u * p.half + pair % p.half;
  if (isKey) {
    let a = p.kOffset + row * p.kStride + first;
    let xa = ks[a];
    let xb = ks[a + p.half];
    keys[cached + first] = xa * c - xb * s;
    keys[cached + first + p.half] = xb * c + xa * s;
  } else {
    let a = p.qOffset + row * p.qStride + first;
    let xa = qs[a];
    let xb = qs[a + p.half];
    qs[a] = xa * c - xb * s;
    qs[a + p.half] = xb * c + xa * s;
  }`),
});

/** New slots of every head have no mass; one row per head. */
export const clearMass = kernel({
  name: "clearMass",
  params: { start: "u32", count: "u32", slots: "u32" },
  buffers: { mass: readWrite() },
  code: entry(/* wgsl */ `if (i < p.count) { mass[row * p.slots + p.start + i] = 0.0; }`),
});

/** Words of a move: head, from, to, and by how many positions its key is turned. */
export const moveWords = 4;

/** One row per move, one thread per element. @param turned whether keys turn; @param weighed whether mass moves along */
export const moveKv = (turned: boolean, weighed: boolean) =>
  kernel({
    name: `moveKv${turned ? " turned" : ""}${weighed ? " weighed" : ""}`,
    params: {
      heads: "u32",
      keyDim: "u32",
      valueDim: "u32",
      slots: "u32",
      first: "u32",
      half: "u32",
      step: "u32",
      apart: "u32",
    },
    buffers: {
      moves: read("u32"),
      keys: readWrite(),
      values: readWrite(),
      cosines: read(),
      sines: read(),
      mass: readWrite(),
    },
    code: entry(/* wgsl */ `
  let head = moves[row * ${moveWords}u];
  let source = moves[row * ${moveWords}u + 1u];
  let goal = moves[row * ${moveWords}u + 2u];
  if (i < p.valueDim) {
    values[(goal * p.heads + head) * p.valueDim + i] = values[(source * p.heads + head) * p.valueDim + i];
  }
  let keySource = (source * p.heads + head) * p.keyDim;
  let keyGoal = (goal * p.heads + head) * p.keyDim;
  ${
    turned
      ? /* wgsl */ `
  if (i < p.half) {
    let by = bitcast<i32>(moves[row * ${moveWords}u + 3u]);
    let angle = u32(abs(by)) * p.half + i;
    let c = cosines[angle];
    let s = select(sines[angle], -sines[angle], by < 0);
    let a = p.first + i * p.step;
    let b = a + p.apart;
    let xa = keys[keySource + a];
    let xb = keys[keySource + b];
    keys[keyGoal + a] = xa * c - xb * s;
    keys[keyGoal + b] = xb * c + xa * s;
  }
  // What does not turn goes along: before the turned columns, and behind them.
  if (i < p.keyDim && (i < p.first || i >= p.first + 2u * p.half)) { keys[keyGoal + i] = keys[keySource + i]; }`
      : "if (i < p.keyDim) { keys[keyGoal + i] = keys[keySource + i]; }"
  }
  ${weighed ? "if (i == 0u) { mass[head * p.slots + goal] = mass[head * p.slots + source]; }" : ""}`),
  });

/** Slots of a workgroup of `attentionMass`. */
export const massThreads = 64;

/**
 * Adds to every slot what a pass of attention gave it: exp(score − m) / l, with the m and l that the pass left of its runs.
 * One thread per slot, a grid row per key head. The sum over rows is in their order, so that results do not depend on
 * timing.
 */
export const attentionMass = (listed: boolean, largest: boolean, codes: KvCodes | undefined, keyDim: number) =>
  kernel({
    name: `attentionMass${listed ? " listed" : ""}${largest ? " largest" : ""}${codes ? ` ${codesName(codes)} ${keyDim}` : ""}`,
    params: {
      qOffset: "u32",
      qStride: "u32",
      tokens: "u32",
      start: "u32",
      window: "u32",
      causal: "u32",
      kvHeads: "u32",
      group: "u32",
      keyDim: "u32",
      runs: "u32",
      scale: "f32",
      /** 0: none. */
      softcap: "f32",
      ...codedParams,
      keyScalesAt: "u32",
      keyRingAt: "u32",
      slots: "u32",
      listsAt: "u32",
      tables: "u32",
      blocksAt: "u32",
      bitsAt: "u32",
    },
    buffers: {
      mass: readWrite(),
      qs: read(),
      cachedKeys: read(codes === undefined ? "f32" : "u32"),
      states: read(),
      sight: read("u32"),
    },
    code: /* wgsl */ `
@compute @workgroup_size(${massThreads})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let slot = id.x;
  let kvHead = id.y;
  if (slot >= p.slots) { return; }
  let keyAt = (slot * p.kvHeads + kvHead) * p.keyDim;
  var given = 0.0;
  ${listed ? "var mask = 0u;" : ""}
  for (var token = 0u; token < p.tokens; token += 1u) {
    ${
      listed
        ? /* wgsl */ `
    if (token % ${rowsOfGroup}u == 0u) {
      // No mask of this number: the block is not listed.
      mask = 0xfffffffeu;
      let list = p.listsAt + token / ${rowsOfGroup}u;
      for (var i = sight[list]; i < sight[list + 1u]; i += 1u) {
        if (sight[p.blocksAt + 2u * i] == slot / ${slotsOfBlock}u) { mask = sight[p.blocksAt + 2u * i + 1u]; }
      }
    }
    if (mask == 0xfffffffeu) { continue; }`
        : /* wgsl */ `
    let own = p.start + select(p.tokens - 1u, token, p.causal == 1u);
    if (slot > own || slot + p.window <= own) { continue; }`
    }
    var share = 0.0;
    for (var h = 0u; h < p.group; h += 1u) {
      ${listed ? `if ((wordOf(mask, token * p.group + h, kvHead) & (1u << (slot % ${slotsOfBlock}u))) == 0u) { continue; }` : ""}
      let head = kvHead * p.group + h;
      let q = p.qOffset + token * p.qStride + head * p.keyDim;
      var score = 0.0;
      for (var d = 0u; d < p.keyDim; d += 1u) { score = fma(qs[q + d], ${codes === undefined ? "cachedKeys[keyAt + d]" : "keyOne(slot, kvHead, d)"}, score); }
      score *= p.scale;
      if (p.softcap > 0.0) { score = p.softcap * tanh(clamp(score / p.softcap, -15.0, 15.0)); }
      // The share is 1 / Σ exp(others − score), run by run.
      var others = 0.0;
      for (var run = 0u; run < p.runs; run += 1u) {
        let at = 2u * ((run * p.tokens + token) * p.kvHeads * p.group + head);
        if (states[at + 1u] > 0.0) { others += states[at + 1u] * exp(min(states[at] - score, 80.0)); }
      }
      share = ${largest ? "max(share, 1.0 / others)" : "share + 1.0 / others"};
    }
    given += share;
  }
  mass[kvHead * p.capacity + slot] += given;
}
${listed ? wordOf : ""}
${codes === undefined ? "" : codedReads("key", "cachedKeys", codes, keyDim)}`,
  });

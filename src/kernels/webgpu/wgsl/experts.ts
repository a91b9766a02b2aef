import { noSlot } from "../../routing.js";
import { kernel, read, readWrite } from "../kernel.js";
import { elementThreads } from "./elementwise.js";
import { nanKey, orderedKey } from "./topK.js";

// A routing lies in one buffer: for every slot its expert, then its row; for every row its slots, then their weights.

/** Most experts that `route` chooses among. */
export const mostExperts = 1024;

const threads = 64;

/**
 * `Backend.route` for one row, by one workgroup. Every expert finds its own rank, so that nothing is sorted. Everything is by
 * expert but `chosen`, which holds scores by rank.
 */
export const route = kernel({
  name: "route",
  params: {
    experts: "u32",
    perRow: "u32",
    /** 1: sigmoid, else softmax. */
    sigmoid: "u32",
    /** Whether experts are chosen by scores with `biases`, else by logits. */
    byScore: "u32",
    groups: "u32",
    keptGroups: "u32",
    normalise: "u32",
    uniform: "u32",
    factor: "f32",
    offset: "u32",
  },
  buffers: { routing: readWrite("u32"), logits: read(), biases: read() },
  code: /* wgsl */ `
${orderedKey}
var<workgroup> scores: array<f32, ${mostExperts}>;
var<workgroup> keys: array<u32, ${mostExperts}>;
var<workgroup> groupScores: array<f32, ${mostExperts}>;
var<workgroup> chosen: array<f32, ${mostExperts}>;
fn logitOf(expert: u32) -> f32 {
  let logit = logits[p.offset + expert];
  let isNan = orderedKey(bitcast<u32>(logit)) == ${nanKey}u;
  return select(clamp(logit, -3e38, 3e38), -3e38, isNan);
}
fn choiceOf(expert: u32) -> f32 { return scores[expert] + biases[expert]; }
/** The sum of the two best of a group. */
fn groupScore(group: u32) -> f32 {
  let size = p.experts / p.groups;
  var best = -3e38;
  var next = -3e38;
  for (var e = group * size; e < (group + 1u) * size; e += 1u) {
    let c = choiceOf(e);
    next = max(next, min(c, best));
    best = max(best, c);
  }
  return best + select(next, 0.0, size == 1u);
}
@compute @workgroup_size(${threads})
fn main(@builtin(local_invocation_index) t: u32) {
  var highest = -3e38;
  var isBroken = false;
  for (var expert = 0u; expert < p.experts; expert += 1u) {
    highest = max(highest, logitOf(expert));
    isBroken = isBroken || orderedKey(bitcast<u32>(logits[p.offset + expert])) == ${nanKey}u;
  }
  var all = 0.0;
  for (var expert = 0u; expert < p.experts; expert += 1u) { all += exp(max(logitOf(expert) - highest, -200.0)); }
  // Where weights are divided by their sum anyway, a common divisor changes nothing but what vanishes.
  let divisor = select(all, 1.0, p.normalise != 0u && p.byScore == 0u);
  for (var expert = t; expert < p.experts; expert += ${threads}u) {
    let logit = logitOf(expert);
    let soft = exp(max(logit - highest, -200.0)) / divisor;
    scores[expert] = select(soft, 1.0 / (1.0 + exp(clamp(-logit, -80.0, 80.0))), p.sigmoid != 0u);
  }
  workgroupBarrier();
  for (var group = t; group < p.groups; group += ${threads}u) { groupScores[group] = groupScore(group); }
  workgroupBarrier();
  for (var expert = t; expert < p.experts; expert += ${threads}u) {
    var key = orderedKey(bitcast<u32>(logits[p.offset + expert]));
    if (p.byScore != 0u) { key = orderedKey(bitcast<u32>(choiceOf(expert))); }
    if (p.groups > 0u) {
      let own = expert / (p.experts / p.groups);
      var rank = 0u;
      for (var other = 0u; other < p.groups; other += 1u) {
        rank += select(0u, 1u, (groupScores[other] > groupScores[own]) | ((groupScores[other] == groupScores[own]) & (other < own)));
      }
      // Comes behind every number.
      if (rank >= p.keptGroups) { key = 0u; }
    }
    keys[expert] = key;
  }
  workgroupBarrier();
  for (var expert = t; expert < p.experts; expert += ${threads}u) {
    let key = keys[expert];
    var rank = 0u;
    for (var other = 0u; other < p.experts; other += 1u) {
      rank += select(0u, 1u, (keys[other] > key) | ((keys[other] == key) & (other < expert)));
    }
    if (rank < p.perRow) {
      chosen[rank] = scores[expert];
      routing[rank] = expert;
      routing[p.perRow + rank] = 0u;
      routing[2u * p.perRow + rank] = rank;
    }
  }
  workgroupBarrier();
  var total = 0.0;
  for (var rank = 0u; rank < p.perRow; rank += 1u) { total += chosen[rank]; }
  for (var rank = t; rank < p.perRow; rank += ${threads}u) {
    var weight = chosen[rank] / select(1.0, total, p.normalise != 0u);
    if (p.uniform != 0u) { weight = 1.0 / f32(p.perRow); }
    routing[3u * p.perRow + rank] = select(bitcast<u32>(p.factor * weight), 0x7fc00000u, isBroken);
  }
}`,
});

/** out[s] += bias of the expert of slot s; biases [experts, cols] */
export const addExpertBias = kernel({
  name: "addExpertBias",
  params: { cols: "u32", outOffset: "u32", outStride: "u32" },
  buffers: { outs: readWrite(), biases: read(), routing: read("u32") },
  code: /* wgsl */ `
@compute @workgroup_size(${elementThreads})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.cols) { return; }
  outs[p.outOffset + id.y * p.outStride + id.x] += biases[routing[id.y] * p.cols + id.x];
}`,
});

/** out[s] = x[row of slot s] */
export const gatherRows = kernel({
  name: "gatherRows",
  params: { cols: "u32", slots: "u32", outOffset: "u32", outStride: "u32", xOffset: "u32", xStride: "u32" },
  buffers: { outs: readWrite(), xs: read(), routing: read("u32") },
  code: /* wgsl */ `
@compute @workgroup_size(${elementThreads})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.cols) { return; }
  outs[p.outOffset + id.y * p.outStride + id.x] = xs[p.xOffset + routing[p.slots + id.y] * p.xStride + id.x];
}`,
});

/** out[r] += Σ weight of s · x[s] over the slots of r */
export const addExperts = kernel({
  name: "addExperts",
  params: {
    cols: "u32",
    slots: "u32",
    rows: "u32",
    perRow: "u32",
    outOffset: "u32",
    outStride: "u32",
    xOffset: "u32",
    xStride: "u32",
  },
  buffers: { outs: readWrite(), xs: read(), routing: read("u32") },
  code: /* wgsl */ `
@compute @workgroup_size(${elementThreads})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.cols) { return; }
  let at = p.outOffset + id.y * p.outStride + id.x;
  var sum = outs[at];
  for (var k = 0u; k < p.perRow; k += 1u) {
    let place = 2u * p.slots + id.y * p.perRow + k;
    if (routing[place] == ${noSlot}u) { continue; }
    sum += bitcast<f32>(routing[place + p.rows * p.perRow]) * xs[p.xOffset + routing[place] * p.xStride + id.x];
  }
  outs[at] = sum;
}`,
});

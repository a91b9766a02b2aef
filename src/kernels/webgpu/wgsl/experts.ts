import { kernel, read, readWrite } from "../kernel.js";
import { elementThreads } from "./elementwise.js";
import { nanKey, orderedKey } from "./topK.js";

// A routing lies in one buffer: for every slot its expert and its row, then for every row its slots, then their weights.

/** Most experts that `route` chooses among. */
export const mostExperts = 1024;

const threads = 64;

/**
 * `Backend.route` for one row, by one workgroup. Every expert finds its own rank, so that nothing is sorted.
 * `sizes` holds all logits by rank.
 */
export const route = kernel({
  name: "route",
  params: { experts: "u32", perRow: "u32", normalise: "u32", offset: "u32" },
  buffers: { routing: readWrite("u32"), logits: read() },
  code: /* wgsl */ `
${orderedKey}
var<workgroup> largestKey: u32;
var<workgroup> sizes: array<f32, ${mostExperts}>;
fn keyOf(expert: u32) -> u32 { return orderedKey(bitcast<u32>(logits[p.offset + expert])); }
@compute @workgroup_size(${threads})
fn main(@builtin(local_invocation_index) t: u32) {
  for (var expert = t; expert < p.experts; expert += ${threads}u) {
    let key = keyOf(expert);
    var rank = 0u;
    for (var other = 0u; other < p.experts; other += 1u) {
      let otherKey = keyOf(other);
      rank += select(0u, 1u, (otherKey > key) | ((otherKey == key) & (other < expert)));
    }
    sizes[rank] = select(clamp(logits[p.offset + expert], -3e38, 3e38), -3e38, key == ${nanKey}u);
    if (rank == 0u) { largestKey = key; }
    if (rank < p.perRow) {
      routing[rank] = expert;
      routing[p.perRow + rank] = 0u;
      routing[2u * p.perRow + rank] = rank;
    }
  }
  workgroupBarrier();
  var total = 0.0;
  for (var rank = 0u; rank < select(p.experts, p.perRow, p.normalise != 0u); rank += 1u) {
    total += exp(max(sizes[rank] - sizes[0], -200.0));
  }
  for (var rank = t; rank < p.perRow; rank += ${threads}u) {
    let weight = bitcast<u32>(exp(max(sizes[rank] - sizes[0], -200.0)) / total);
    routing[3u * p.perRow + rank] = select(weight, 0x7fc00000u, largestKey == ${nanKey}u);
  }
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
    sum += bitcast<f32>(routing[place + p.slots]) * xs[p.xOffset + routing[place] * p.xStride + id.x];
  }
  outs[at] = sum;
}`,
});

import { kernel, read, readWrite } from "../../../kernels/internal.js";

/**
 * Weights, moments and gradients are seen in fours: a group of four along a row is one vec4 and one u32 of flags, whose bits
 * 0 … 3 say which of them are kept, bit 4 whether they may be pruned, bit 5 whether weight decay applies.
 */
export const prunable = 16;
export const decays = 32;

const threads = 256;

const begin = /* wgsl */ `
@compute @workgroup_size(${threads})
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) t: u32,
)`;
/** Every thread takes some of `p.count` fours. */
const each = `var at = workgroup.x * ${threads}u + t; at < p.count; at += groups.x * ${threads}u`;

/** Workgroups of these kernels at most, and as many partial sums. */
export const maxUpdateGroups = 1024;
export const updateGroups = (count: number): number => Math.min(maxUpdateGroups, Math.ceil(count / threads));

const keptOf = /* wgsl */ `
fn keptOf(flag: u32) -> vec4<f32> {
  return vec4<f32>(vec4<u32>(flag, flag >> 1u, flag >> 2u, flag >> 3u) & vec4<u32>(1u));
}`;

/** Keeps the `keep` largest magnitudes of every four, the first of equal ones; counts what changed, and since the first choice. */
export const chooseMasks = kernel({
  name: "train choose masks",
  params: { count: "u32", keep: "u32", isFirst: "u32" },
  buffers: {
    flags: readWrite("u32"),
    first: readWrite("u32"),
    counters: readWrite("atomic<u32>"),
    master: read("vec4<f32>"),
  },
  code: /* wgsl */ `
var<workgroup> changes: array<atomic<u32>, 2>;
${begin} {
  if (t < 2u) { atomicStore(&changes[t], 0u); }
  workgroupBarrier();
  var flipped = 0u;
  var drifted = 0u;
  for (${each}) {
    let flag = flags[at];
    if ((flag & ${prunable}u) == 0u) { continue; }
    let size = abs(master[at]);
    var kept = 0u;
    for (var i = 0u; i < 4u; i += 1u) {
      var larger = 0u;
      for (var j = 0u; j < 4u; j += 1u) {
        if (size[j] > size[i] || (size[j] == size[i] && j < i)) { larger += 1u; }
      }
      if (larger < p.keep) { kept |= 1u << i; }
    }
    if (p.isFirst != 0u) { first[at] = kept; } else { flipped += countOneBits((flag & 15u) ^ kept); }
    drifted += countOneBits(first[at] ^ kept);
    flags[at] = (flag & ~15u) | kept;
  }
  atomicAdd(&changes[0], flipped);
  atomicAdd(&changes[1], drifted);
  workgroupBarrier();
  if (t < 2u) { atomicAdd(&counters[t], atomicLoad(&changes[t])); }
}`,
});

/** weights = master ∘ mask. */
export const maskWeights = kernel({
  name: "train mask weights",
  params: { count: "u32" },
  buffers: { weights: readWrite("vec4<f32>"), master: read("vec4<f32>"), flags: read("u32") },
  code: /* wgsl */ `
${keptOf}
${begin} {
  for (${each}) { weights[at] = select(vec4<f32>(), master[at], keptOf(flags[at]) != vec4<f32>()); }
}`,
});

/** weights = master, each stretch of a row times its scale. */
export const scaleWeights = kernel({
  name: "train scale weights",
  params: { count: "u32", offset: "u32", width: "u32", stretches: "u32", scales: "u32" },
  buffers: { weights: readWrite(), master: read(), scale: read() },
  code: /* wgsl */ `
${begin} {
  for (${each}) {
    let column = at % p.width;
    let stretch = p.scales + at / p.width * p.stretches + column * p.stretches / p.width;
    weights[p.offset + at] = master[p.offset + at] * scale[stretch];
  }
}`,
});

/**
 * From dL/d(scaled weights): the gradient of the scale of each stretch, Σ g ∘ w, and g times the scale in its place. One
 * workgroup per stretch; its columns are those that `scaleWeights` gives it.
 */
export const scaleGradients = kernel({
  name: "train scale gradients",
  params: { offset: "u32", width: "u32", stretches: "u32", scales: "u32", result: "u32" },
  buffers: { gradients: readWrite(), scaleGradient: readWrite(), master: read(), scale: read() },
  code: /* wgsl */ `
var<workgroup> shares: array<f32, ${threads}>;
${begin} {
  let row = workgroup.x;
  let stretch = workgroup.y;
  let first = (stretch * p.width + p.stretches - 1u) / p.stretches;
  let end = ((stretch + 1u) * p.width + p.stretches - 1u) / p.stretches;
  let factor = scale[p.scales + row * p.stretches + stretch];
  var sum = 0.0;
  for (var column = first + t; column < end; column += ${threads}u) {
    let at = p.offset + row * p.width + column;
    let g = gradients[at];
    sum += g * master[at];
    gradients[at] = g * factor;
  }
  shares[t] = sum;
  workgroupBarrier();
  for (var reach = ${threads / 2}u; reach > 0u; reach /= 2u) {
    if (t < reach) { shares[t] += shares[t + reach]; }
    workgroupBarrier();
  }
  if (t == 0u) { scaleGradient[p.result + row * p.stretches + stretch] = shares[0]; }
}`,
});

/** Adds the pull of pruned weights to their gradients, or makes those 0; sums squares into parts[part + workgroup]. */
export const prepareGradients = kernel({
  name: "train prepare gradients",
  params: { count: "u32", master: "u32", part: "u32", frozen: "u32", pull: "f32" },
  buffers: { gradients: readWrite("vec4<f32>"), parts: readWrite(), master: read("vec4<f32>"), flags: read("u32") },
  code: /* wgsl */ `
${keptOf}
var<workgroup> shares: array<f32, ${threads}>;
${begin} {
  var sum = 0.0;
  for (${each}) {
    let kept = keptOf(flags[p.master + at]);
    var g = gradients[at];
    if (p.frozen != 0u) { g *= kept; } else { g += p.pull * (1.0 - kept) * master[p.master + at]; }
    gradients[at] = g;
    sum += dot(g, g);
  }
  shares[t] = sum;
  workgroupBarrier();
  for (var reach = ${threads / 2}u; reach > 0u; reach /= 2u) {
    if (t < reach) { shares[t] += shares[t + reach]; }
    workgroupBarrier();
  }
  if (t == 0u) { parts[p.part + workgroup.x] = shares[0]; }
}`,
});

/** shorten[0] = what brings a gradient longer than `clip` back to it, else 1. */
export const clipFactor = kernel({
  name: "train clip factor",
  params: { parts: "u32", clip: "f32" },
  buffers: { shorten: readWrite(), sums: read() },
  code: /* wgsl */ `
var<workgroup> shares: array<f32, ${threads}>;
@compute @workgroup_size(${threads})
fn main(@builtin(local_invocation_index) t: u32) {
  var sum = 0.0;
  for (var i = t; i < p.parts; i += ${threads}u) { sum += sums[i]; }
  shares[t] = sum;
  workgroupBarrier();
  for (var reach = ${threads / 2}u; reach > 0u; reach /= 2u) {
    if (t < reach) { shares[t] += shares[t + reach]; }
    workgroupBarrier();
  }
  if (t == 0u) { shorten[0] = min(1.0, p.clip / max(sqrt(shares[0]), 1.0e-30)); }
}`,
});

/** One step of Adam with decoupled decay and the pull of pruned weights; `master` is where these weights begin. */
export const adamStep = kernel({
  name: "train adam step",
  params: {
    count: "u32",
    first: "u32",
    frozen: "u32",
    beta1: "f32",
    beta2: "f32",
    epsilon: "f32",
    meanCorrection: "f32",
    squareCorrection: "f32",
    rate: "f32",
    decay: "f32",
    keepMean: "f32",
    pullWeight: "f32",
    pullSign: "f32",
    squaresMeans: "u32",
  },
  buffers: {
    master: readWrite("vec4<f32>"),
    mean: readWrite("vec4<f32>"),
    square: readWrite("vec4<f32>"),
    gradients: read("vec4<f32>"),
    flags: read("u32"),
    shorten: read(),
  },
  code: /* wgsl */ `
${keptOf}
${begin} {
  for (${each}) {
    let i = p.first + at;
    let flag = flags[i];
    let kept = keptOf(flag);
    let w = master[i];
    let g = gradients[at] * shorten[0];
    let m = p.beta1 * mean[i] + (1.0 - p.beta1) * g;
    let pulled = select(p.keepMean * m + p.pullWeight * w + p.pullSign * sign(w), m, kept != vec4<f32>());
    let squared = select(g, pulled, p.squaresMeans != 0u);
    let v = p.beta2 * square[i] + (1.0 - p.beta2) * squared * squared;
    let decay = select(0.0, p.decay, (flag & ${decays}u) != 0u);
    let next = w - p.rate * (pulled * p.meanCorrection / (sqrt(v * p.squareCorrection) + p.epsilon) + decay * w);
    mean[i] = m;
    square[i] = v;
    master[i] = select(next, next * kept, p.frozen != 0u);
  }
}`,
});

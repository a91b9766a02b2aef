import { kernel, read, readWrite } from "../kernel.js";

/** 1 / √x, NaN where x is not finite: 0 would hide that a row is out of range. */
const inverseRoot = /* wgsl */ `
fn inverseRoot(x: f32) -> f32 {
  let full = (bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u;
  return select(1.0 / sqrt(x), bitcast<f32>(0x7fc00000u | bitcast<u32>(x)), full);
}`;

/**
 * 1 / √(mean(x²) + epsilon) of a row of `width` from `squareCount` shares of Σx², for every thread `t` of a workgroup.
 * @param subgroups32 lets the threads of a subgroup read one share each
 */
export const inverseRms = (width: string, subgroups32: boolean) => /* wgsl */ `${inverseRoot}
fn inverseRms(t: u32) -> f32 {
  var sum = 0.0;
  ${
    subgroups32
      ? `for (var i = t % 32u; i < p.squareCount; i += 32u) { sum += squares[i]; }
  sum = subgroupAdd(sum);`
      : "for (var i = 0u; i < p.squareCount; i += 1u) { sum += squares[i]; }"
  }
  return inverseRoot(sum / f32(${width}) + p.epsilon);
}`;

/** x ·= 1 / √(mean + epsilon) for one row: what a norm lacks after a product made x∘weight and the squares. */
export const finishNorm = kernel({
  name: "finishNorm",
  params: { width: "u32", offset: "u32", epsilon: "f32", squareCount: "u32" },
  buffers: { xs: readWrite(), squares: read() },
  code: /* wgsl */ `
${inverseRms("p.width", false)}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < p.width) { xs[p.offset + id.x] *= inverseRms(id.x); }
}`,
});

/** out = x / √(mean(x²) + epsilon) · weight over one run of `width` columns per workgroup. */
export const rmsNorm = (threads: 64 | 256 | 1024) =>
  kernel({
    name: `rmsNorm ${threads}`,
    params: {
      width: "u32",
      outOffset: "u32",
      outStride: "u32",
      xOffset: "u32",
      xStride: "u32",
      epsilon: "f32",
    },
    buffers: { outs: readWrite(), xs: read(), weight: read() },
    code: /* wgsl */ `${inverseRoot}
var<workgroup> sums: array<f32, ${threads}>;
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let x = p.xOffset + group.y * p.xStride + group.x * p.width;
  let out = p.outOffset + group.y * p.outStride + group.x * p.width;
  var sum = 0.0;
  for (var i = t; i < p.width; i += ${threads}u) { sum = fma(xs[x + i], xs[x + i], sum); }
  sums[t] = sum;
  for (var half = ${threads / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (t < half) { sums[t] += sums[t + half]; }
  }
  workgroupBarrier();
  let inverse = inverseRoot(sums[0] / f32(p.width) + p.epsilon);
  for (var i = t; i < p.width; i += ${threads}u) { outs[out + i] = xs[x + i] * inverse * weight[i]; }
}`,
  });

/** out = (x − mean) / √(variance + epsilon) · weight + bias over one run of `width` columns per workgroup. */
export const layerNorm = kernel({
  name: "layerNorm",
  params: {
    width: "u32",
    outOffset: "u32",
    outStride: "u32",
    xOffset: "u32",
    xStride: "u32",
    epsilon: "f32",
  },
  buffers: { outs: readWrite(), xs: read(), weight: read(), bias: read() },
  code: /* wgsl */ `
var<workgroup> sums: array<f32, 256>;
fn total(t: u32, own: f32) -> f32 {
  workgroupBarrier();
  sums[t] = own;
  for (var half = 128u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (t < half) { sums[t] += sums[t + half]; }
  }
  workgroupBarrier();
  return sums[0];
}
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let x = p.xOffset + group.y * p.xStride + group.x * p.width;
  let out = p.outOffset + group.y * p.outStride + group.x * p.width;
  var sum = 0.0;
  for (var i = t; i < p.width; i += 256u) { sum += xs[x + i]; }
  let mean = total(t, sum) / f32(p.width);
  var squares = 0.0;
  for (var i = t; i < p.width; i += 256u) { squares = fma(xs[x + i] - mean, xs[x + i] - mean, squares); }
  let inverse = 1.0 / sqrt(total(t, squares) / f32(p.width) + p.epsilon);
  for (var i = t; i < p.width; i += 256u) { outs[out + i] = (xs[x + i] - mean) * inverse * weight[i] + bias[i]; }
}`,
});

import { kernel, read, readWrite } from "../kernel.js";

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
    code: /* wgsl */ `
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
  let inverse = 1.0 / sqrt(sums[0] / f32(p.width) + p.epsilon);
  for (var i = t; i < p.width; i += ${threads}u) { outs[out + i] = xs[x + i] * inverse * weight[i]; }
}`,
  });

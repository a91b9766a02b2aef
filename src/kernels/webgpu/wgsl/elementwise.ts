import type { ActivationFunction } from "../../../core/index.js";
import { kernel, read, readWrite } from "../kernel.js";

/** Threads of a workgroup in kernels of elements. */
export const elementThreads = 64;

/** Elements that a thread takes one after the other: a workgroup for so few takes as long to begin as to run. */
const elementsOfThread = 4;

/** How many workgroups take so many elements of a row. */
export const elementGroups = (elements: number) => Math.ceil(elements / (elementThreads * elementsOfThread));

/** A kernel's entry point, which is given each element `i`, or pair, of `row`; one grid row per matrix row. */
export const entry = (body: string) => /* wgsl */ `
fn element(i: u32, row: u32) {
  ${body}
}

@compute @workgroup_size(${elementThreads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let first = workgroup.x * ${elementThreads * elementsOfThread}u + t;
  for (var k = 0u; k < ${elementsOfThread}u; k += 1u) { element(first + k * ${elementThreads}u, workgroup.y); }
}`;

/** out += x */
export const add = kernel({
  name: "add",
  params: { cols: "u32", outOffset: "u32", outStride: "u32", xOffset: "u32", xStride: "u32" },
  buffers: { outs: readWrite(), xs: read() },
  code: entry(/* wgsl */ `
  if (i < p.cols) { outs[p.outOffset + row * p.outStride + i] += xs[p.xOffset + row * p.xStride + i]; }`),
});

/** Rows [lead, turned, run] as [turned, lead, run]; one thread per element of the result. */
export const swapAxes = kernel({
  name: "swapAxes",
  params: {
    cols: "u32",
    lead: "u32",
    turned: "u32",
    run: "u32",
    outOffset: "u32",
    outStride: "u32",
    xOffset: "u32",
    xStride: "u32",
  },
  buffers: { outs: readWrite(), xs: read() },
  code: entry(/* wgsl */ `
  if (i < p.cols) {
    let a = (i / p.run) % p.lead;
    let b = i / (p.run * p.lead);
    outs[p.outOffset + row * p.outStride + i] = xs[p.xOffset + row * p.xStride + (a * p.turned + b) * p.run + i % p.run];
  }`),
});

/** Rotates the pairs of every run of headDim columns, see `pairPlaces`; one thread per pair. */
export const rope = kernel({
  name: "rope",
  params: {
    pairs: "u32",
    headDim: "u32",
    first: "u32",
    half: "u32",
    step: "u32",
    apart: "u32",
    offset: "u32",
    stride: "u32",
    start: "u32",
  },
  buffers: { xs: readWrite(), cosines: read(), sines: read() },
  code: entry(/* wgsl */ `
  if (i < p.pairs) {
    let k = i % p.half;
    let a = p.offset + row * p.stride + i / p.half * p.headDim + p.first + k * p.step;
    let b = a + p.apart;
    let angle = (p.start + row) * p.half + k;
    let c = cosines[angle];
    let s = sines[angle];
    let xa = xs[a];
    let xb = xs[b];
    xs[a] = xa * c - xb * s;
    xs[b] = xb * c + xa * s;
  }`),
});

/**
 * Bodies of f(x) in WGSL. Arguments of exp and tanh are bounded because WGSL lets a driver assume that no infinity arises.
 * erf: Abramowitz and Stegun 7.1.26.
 */
const functions: Readonly<Record<ActivationFunction, string>> = {
  silu: "return x / (1.0 + exp(min(-x, 80.0)));",
  relu: "return select(x, 0.0, x < 0.0);",
  relu2: "let r = select(x, 0.0, x < 0.0); return r * r;",
  gelu: /* wgsl */ `
  let z = abs(x) * 0.70710678118654752;
  let t = 1.0 / (1.0 + 0.3275911 * z);
  let poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return 0.5 * x * (1.0 + sign(x) * (1.0 - poly * exp(-min(z * z, 80.0))));`,
  geluTanh: "return 0.5 * x * (1.0 + tanh(clamp(0.7978845608028654 * (x + 0.044715 * x * x * x), -15.0, 15.0)));",
};

/** `f(x)` as a WGSL function. */
export const activationFunction = (f: ActivationFunction) => `fn f(x: f32) -> f32 { ${functions[f]} }`;

/** Bodies of functions with a number, `by`; tanh bounded as above. */
const numbered = {
  scale: "return x * by;",
  softcap: "return by * tanh(clamp(x / by, -15.0, 15.0));",
  clamp: "return clamp(x, -by, by);",
} as const;

/** out = f(x) */
export const map = (f: ActivationFunction | keyof typeof numbered) =>
  kernel({
    name: `map ${f}`,
    params: { cols: "u32", outOffset: "u32", outStride: "u32", xOffset: "u32", xStride: "u32", by: "f32" },
    buffers: { outs: readWrite(), xs: read() },
    code:
      `fn f(x: f32, by: f32) -> f32 { ${f in numbered ? numbered[f as keyof typeof numbered] : functions[f as ActivationFunction]} }` +
      entry(/* wgsl */ `
  if (i < p.cols) { outs[p.outOffset + row * p.outStride + i] = f(xs[p.xOffset + row * p.xStride + i], p.by); }`),
  });

/** out = f(gate) · up, 0 where |f(gate)| < threshold; see `GateOptions` for "clamped". */
export const gatedActivation = (f: ActivationFunction | "clamped") =>
  kernel({
    name: `gatedActivation ${f}`,
    params: {
      cols: "u32",
      outOffset: "u32",
      outStride: "u32",
      gateOffset: "u32",
      gateStride: "u32",
      upOffset: "u32",
      upStride: "u32",
      threshold: "f32",
      limit: "f32",
      sharpness: "f32",
    },
    buffers: { outs: readWrite(), gates: read(), ups: read() },
    code:
      (f === "clamped" ? "" : activationFunction(f)) +
      entry(/* wgsl */ `
  if (i < p.cols) {
    var gate = gates[p.gateOffset + row * p.gateStride + i];
    var up = ups[p.upOffset + row * p.upStride + i];
    ${
      f === "clamped"
        ? /* wgsl */ `
    gate = min(gate, p.limit);
    up = clamp(up, -p.limit, p.limit) + 1.0;
    let activated = gate / (1.0 + exp(min(-p.sharpness * gate, 80.0)));`
        : "let activated = f(gate);"
    }
    let product = activated * up;
    outs[p.outOffset + row * p.outStride + i] = select(product, 0.0, abs(activated) < p.threshold);
  }`),
  });

import { Add, Embed, GatedActivation, LayerNorm, Map, RmsNorm, Rope, SwapAxes } from "./generated/records";
import { element4, activation4, mulAdd, sigmoid4, sumLanes } from "./math";
import { weightAt } from "./matvec";
import { threadCount } from "./sync";

// Operations with no sums between rows. Each thread takes its share of the rows, or of the runs inside them.
// All counts and strides in floats.

// @ts-ignore: decorator
@inline
export function shareStart(count: i32, thread: i32): i32 {
  return <i32>((<i64>count * thread) / threadCount());
}

export function rmsNorm(a: RmsNorm, thread: i32): void {
  const out = a.out;
  const outStride = a.outStride;
  const x = a.x;
  const xStride = a.xStride;
  const weight = a.weight;
  const length = a.weightLength;
  const runs = a.cols / length;
  const total = a.rows * runs;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const source = x + ((<usize>((n / runs) * xStride + (n % runs) * length)) << 2);
    const target = out + ((<usize>((n / runs) * outStride + (n % runs) * length)) << 2);
    let squares = f32x4.splat(0);
    let i: usize = 0;
    const bytes = (<usize>length) << 2;
    for (; i + 16 <= bytes; i += 16) {
      const v = v128.load(source + i);
      squares = mulAdd(v, v, squares);
    }
    let sum = sumLanes(squares);
    for (let k = i; k < bytes; k += 4) sum += load<f32>(source + k) * load<f32>(source + k);
    // 1 / √∞ is 0, which would hide that the row is out of range.
    const scale: f32 = sum < Infinity ? 1 / sqrt<f32>(sum / <f32>length + a.epsilon) : NaN;
    const scales = f32x4.splat(scale);
    for (i = 0; i + 16 <= bytes; i += 16) {
      v128.store(target + i, f32x4.mul(f32x4.mul(v128.load(source + i), scales), v128.load(weight + i)));
    }
    for (; i < bytes; i += 4) store<f32>(target + i, load<f32>(source + i) * scale * load<f32>(weight + i));
  }
}

export function layerNorm(a: LayerNorm, thread: i32): void {
  const length = a.weightLength;
  const runs = a.cols / length;
  const total = a.rows * runs;
  const bytes = (<usize>length) << 2;
  const whole = bytes & ~(<usize>15);
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const source = a.x + ((<usize>((n / runs) * a.xStride + (n % runs) * length)) << 2);
    const target = a.out + ((<usize>((n / runs) * a.outStride + (n % runs) * length)) << 2);
    let sums = f32x4.splat(0);
    for (let i: usize = 0; i < whole; i += 16) sums = f32x4.add(sums, v128.load(source + i));
    let sum = sumLanes(sums);
    for (let i = whole; i < bytes; i += 4) sum += load<f32>(source + i);
    const mean: f32 = sum / <f32>length;
    const means = f32x4.splat(mean);
    let squares = f32x4.splat(0);
    for (let i: usize = 0; i < whole; i += 16) {
      const v = f32x4.sub(v128.load(source + i), means);
      squares = mulAdd(v, v, squares);
    }
    let square = sumLanes(squares);
    for (let i = whole; i < bytes; i += 4) {
      const v = load<f32>(source + i) - mean;
      square += v * v;
    }
    const scale: f32 = 1 / sqrt<f32>(square / <f32>length + a.epsilon);
    const scales = f32x4.splat(scale);
    for (let i: usize = 0; i < whole; i += 16) {
      const v = f32x4.mul(f32x4.mul(f32x4.sub(v128.load(source + i), means), scales), v128.load(a.weight + i));
      v128.store(target + i, a.bias == 0 ? v : f32x4.add(v, v128.load(a.bias + i)));
    }
    for (let i = whole; i < bytes; i += 4) {
      const v: f32 = (load<f32>(source + i) - mean) * scale * load<f32>(a.weight + i);
      store<f32>(target + i, a.bias == 0 ? v : v + load<f32>(a.bias + i));
    }
  }
}

/** Turns pairs of columns, `step` and `apart` in floats, by the angles at `cos` and `sin`, forward or back. */
export function turnPairs(
  first: usize,
  half: i32,
  step: i32,
  apart: i32,
  cos: usize,
  sin: usize,
  back: bool,
): void {
  for (let i = 0; i < half; i++) {
    const a = first + ((<usize>(i * step)) << 2);
    const b = a + ((<usize>apart) << 2);
    const u = load<f32>(a);
    const v = load<f32>(b);
    const c = load<f32>(cos + ((<usize>i) << 2));
    const turned = load<f32>(sin + ((<usize>i) << 2));
    const s = back ? -turned : turned;
    store<f32>(a, u * c - v * s);
    store<f32>(b, v * c + u * s);
  }
}

export function rope(a: Rope, thread: i32): void {
  const x = a.x;
  const stride = a.stride;
  const heads = a.heads;
  const half = a.half;
  const total = a.rows * heads;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const row = n / heads;
    const angle = (<usize>((a.start + row) * half)) << 2;
    const cos = a.cos + angle;
    const sin = a.sin + angle;
    const first = x + ((<usize>(row * stride + (n % heads) * a.headDim + a.first)) << 2);
    if (a.step != 1) {
      turnPairs(first, half, a.step, a.apart, cos, sin, false);
      continue;
    }
    const second = first + ((<usize>a.apart) << 2);
    const bytes = (<usize>half) << 2;
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16) {
      const u = v128.load(first + i);
      const v = v128.load(second + i);
      const c = v128.load(cos + i);
      const s = v128.load(sin + i);
      v128.store(first + i, f32x4.sub(f32x4.mul(u, c), f32x4.mul(v, s)));
      v128.store(second + i, f32x4.add(f32x4.mul(v, c), f32x4.mul(u, s)));
    }
    for (; i < bytes; i += 4) {
      const u = load<f32>(first + i);
      const v = load<f32>(second + i);
      const c = load<f32>(cos + i);
      const s = load<f32>(sin + i);
      store<f32>(first + i, u * c - v * s);
      store<f32>(second + i, v * c + u * s);
    }
  }
}

export function gatedActivation(a: GatedActivation, thread: i32): void {
  const quads = a.cols >> 2;
  const total = a.rows * quads;
  const id = a.activation;
  const threshold = f32x4.splat(a.threshold);
  const limit = f32x4.splat(a.limit);
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const row = n / quads;
    const at = (<usize>(n % quads)) << 4;
    let gate = v128.load(a.gate + ((<usize>(row * a.gateStride)) << 2) + at);
    let up = v128.load(a.up + ((<usize>(row * a.upStride)) << 2) + at);
    let f: v128;
    if (a.limit > 0) {
      gate = f32x4.min(gate, limit);
      up = f32x4.add(f32x4.max(f32x4.min(up, limit), f32x4.neg(limit)), f32x4.splat(1));
      f = f32x4.mul(gate, sigmoid4(f32x4.mul(gate, f32x4.splat(a.sharpness))));
    } else f = activation4(id, gate);
    const dropped = f32x4.lt(f32x4.abs(f), threshold);
    v128.store(a.out + ((<usize>(row * a.outStride)) << 2) + at, v128.andnot(f32x4.mul(f, up), dropped));
  }
}

export function map(a: Map, thread: i32): void {
  const quads = a.cols >> 2;
  const total = a.rows * quads;
  const id = a.function;
  const by = a.by;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const row = n / quads;
    const at = (<usize>(n % quads)) << 4;
    const x = v128.load(a.x + ((<usize>(row * a.xStride)) << 2) + at);
    v128.store(a.out + ((<usize>(row * a.outStride)) << 2) + at, element4(id, by, x));
  }
}

export function add(a: Add, thread: i32): void {
  const quads = a.cols >> 2;
  const total = a.rows * quads;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const row = n / quads;
    const at = (<usize>(n % quads)) << 4;
    const out = a.out + ((<usize>(row * a.outStride)) << 2) + at;
    const x = a.x + ((<usize>(row * a.xStride)) << 2) + at;
    v128.store(out, f32x4.add(v128.load(out), v128.load(x)));
  }
}

export function embed(a: Embed, thread: i32): void {
  const cols = a.cols;
  const count = a.idsLength;
  const total = count * cols;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const row = n / cols;
    const value = weightAt(a.format, a.weights, a.paddedRows, a.ids(row), <usize>(n % cols));
    store<f32>(a.out + ((<usize>(row * a.outStride + (n % cols))) << 2), value);
  }
}

export function swapAxes(a: SwapAxes, thread: i32): void {
  const run = a.run;
  const bytes = (<usize>run) << 2;
  const total = a.rows * a.turned;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const b = n % a.turned;
    let source = a.x + ((<usize>((n / a.turned) * a.xStride + b * run)) << 2);
    let target = a.out + ((<usize>((n / a.turned) * a.outStride + b * a.lead * run)) << 2);
    const step = (<usize>(a.turned * run)) << 2;
    for (let lead = 0; lead < a.lead; lead++) {
      for (let i: usize = 0; i < bytes; i += 4) store<f32>(target + i, load<f32>(source + i));
      source += step;
      target += bytes;
    }
  }
}

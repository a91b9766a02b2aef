import { activation4, mulAdd, sumLanes } from "./math";
import { weightAt } from "./matvec";
import { threadCount } from "./sync";

// Operations with no sums between rows. Each thread takes its share of the rows, or of the runs inside them.
// All counts and strides in floats.

// @ts-ignore: decorator
@inline
export function shareStart(count: i32, thread: i32): i32 {
  return <i32>((<i64>count * thread) / threadCount());
}

/** @param a out, outStride, x, xStride, rows, cols, weight, weightLength, f32 epsilon */
export function rmsNorm(a: usize, thread: i32): void {
  const out = <usize>load<u32>(a);
  const outStride = load<i32>(a, 4);
  const x = <usize>load<u32>(a, 8);
  const xStride = load<i32>(a, 12);
  const weight = <usize>load<u32>(a, 24);
  const length = load<i32>(a, 28);
  const runs = load<i32>(a, 20) / length;
  const total = load<i32>(a, 16) * runs;
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
    const scale: f32 = 1 / sqrt<f32>(sum / <f32>length + load<f32>(a, 32));
    const scales = f32x4.splat(scale);
    for (i = 0; i + 16 <= bytes; i += 16) {
      v128.store(target + i, f32x4.mul(f32x4.mul(v128.load(source + i), scales), v128.load(weight + i)));
    }
    for (; i < bytes; i += 4) store<f32>(target + i, load<f32>(source + i) * scale * load<f32>(weight + i));
  }
}

/** @param a x, stride, rows, heads, headDim, cos, sin, start */
export function rope(a: usize, thread: i32): void {
  const x = <usize>load<u32>(a);
  const stride = load<i32>(a, 4);
  const heads = load<i32>(a, 12);
  const half = load<i32>(a, 16) >> 1;
  const total = load<i32>(a, 8) * heads;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const row = n / heads;
    const angle = (<usize>((load<i32>(a, 28) + row) * half)) << 2;
    const cos = <usize>load<u32>(a, 20) + angle;
    const sin = <usize>load<u32>(a, 24) + angle;
    const first = x + ((<usize>(row * stride + (n % heads) * half * 2)) << 2);
    const second = first + ((<usize>half) << 2);
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

/** Keys and values are kept [kvHeads][capacity][headDim]. @param a k, kStride, v, vStride, rows, kvHeads, headDim, keys, values, capacity, start */
export function appendKv(a: usize, thread: i32): void {
  const heads = load<i32>(a, 20);
  const headDim = load<i32>(a, 24);
  const total = load<i32>(a, 16) * heads;
  const bytes = (<usize>headDim) << 2;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const row = n / heads;
    const head = n % heads;
    const target = <usize>(head * load<i32>(a, 36) + load<i32>(a, 40) + row) * bytes;
    const column = (<usize>head) * bytes;
    memory.copy(<usize>load<u32>(a, 28) + target, <usize>load<u32>(a) + ((<usize>(row * load<i32>(a, 4))) << 2) + column, bytes);
    memory.copy(<usize>load<u32>(a, 32) + target, <usize>load<u32>(a, 8) + ((<usize>(row * load<i32>(a, 12))) << 2) + column, bytes);
  }
}

/** @param a out, outStride, gate, gateStride, up, upStride, rows, cols (a multiple of 4), function, f32 threshold (0: none) */
export function gatedActivation(a: usize, thread: i32): void {
  const quads = load<i32>(a, 28) >> 2;
  const total = load<i32>(a, 24) * quads;
  const id = load<i32>(a, 32);
  const threshold = f32x4.splat(load<f32>(a, 36));
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const row = n / quads;
    const at = (<usize>(n % quads)) << 4;
    const gate = v128.load(<usize>load<u32>(a, 8) + ((<usize>(row * load<i32>(a, 12))) << 2) + at);
    const up = v128.load(<usize>load<u32>(a, 16) + ((<usize>(row * load<i32>(a, 20))) << 2) + at);
    const f = activation4(id, gate);
    const kept = f32x4.ge(f32x4.abs(f), threshold);
    v128.store(<usize>load<u32>(a) + ((<usize>(row * load<i32>(a, 4))) << 2) + at, v128.and(f32x4.mul(f, up), kept));
  }
}

/** @param a out, outStride, x, xStride, rows, cols (a multiple of 4) */
export function add(a: usize, thread: i32): void {
  const quads = load<i32>(a, 20) >> 2;
  const total = load<i32>(a, 16) * quads;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const row = n / quads;
    const at = (<usize>(n % quads)) << 4;
    const out = <usize>load<u32>(a) + ((<usize>(row * load<i32>(a, 4))) << 2) + at;
    const x = <usize>load<u32>(a, 8) + ((<usize>(row * load<i32>(a, 12))) << 2) + at;
    v128.store(out, f32x4.add(v128.load(out), v128.load(x)));
  }
}

/** @param a out, outStride, cols, weights, paddedRows, format, count; then the row ids (offset where part padding moves them) */
export function embed(a: usize, thread: i32): void {
  const cols = load<i32>(a, 8);
  const count = load<i32>(a, 24);
  const total = count * cols;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const row = n / cols;
    const id = <usize>load<u32>(a + 28 + ((<usize>row) << 2));
    const value = weightAt(load<i32>(a, 20), <usize>load<u32>(a, 12), <usize>load<u32>(a, 16), id, <usize>(n % cols));
    store<f32>(<usize>load<u32>(a) + ((<usize>(row * load<i32>(a, 4) + (n % cols))) << 2), value);
  }
}

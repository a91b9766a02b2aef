import { functionGelu, functionGeluTanh, functionRelu, functionRelu2 } from "../../../program/layout";
import { activation4, exp4, sigmoid4 } from "../math";
import { rowsAtOnce, Step, takeSome } from "./step";

// @ts-ignore: decorator
@unmanaged
export class Activation extends Step {
  count: u32;
  width: u32;
  stride: u32;
  first: u32;
  factor: u32;
  hidden: usize;
  x: usize;
}

// @ts-ignore: decorator
@unmanaged
export class ActivationBackward extends Step {
  count: u32;
  width: u32;
  stride: u32;
  first: u32;
  factor: u32;
  gradient: usize;
  x: usize;
  outer: usize;
}

/** Of a variant: the function of the layout, and whether it is a gate. */
const gated: u32 = 256;

/** f′(x), see `slopes` of the kernels for a GPU. */
function slope4(id: i32, x: v128): v128 {
  const zero = f32x4.splat(0);
  const one = f32x4.splat(1);
  const half = f32x4.splat(0.5);
  if (id == functionRelu) return v128.and(one, f32x4.gt(x, zero));
  if (id == functionRelu2) return f32x4.mul(f32x4.splat(2), f32x4.max(x, zero));
  if (id == functionGelu) {
    const z = f32x4.mul(f32x4.abs(x), f32x4.splat(0.70710678));
    const t = f32x4.div(one, f32x4.add(one, f32x4.mul(f32x4.splat(0.3275911), z)));
    let p = f32x4.splat(1.061405429);
    p = f32x4.add(f32x4.mul(p, t), f32x4.splat(-1.453152027));
    p = f32x4.add(f32x4.mul(p, t), f32x4.splat(1.421413741));
    p = f32x4.add(f32x4.mul(p, t), f32x4.splat(-0.284496736));
    p = f32x4.add(f32x4.mul(p, t), f32x4.splat(0.254829592));
    p = f32x4.mul(p, t);
    const density = exp4(f32x4.neg(f32x4.mul(z, z)));
    const inner = f32x4.sub(one, f32x4.mul(p, density));
    // With the sign of x; at 0 it is 0 already.
    const signed = v128.or(inner, v128.and(x, i32x4.splat(<i32>0x80000000)));
    const below = f32x4.mul(half, f32x4.add(one, signed));
    return f32x4.add(below, f32x4.mul(f32x4.mul(x, f32x4.splat(0.3989422804)), density));
  }
  if (id == functionGeluTanh) {
    // tanh u = 2 · sigmoid(2u) − 1
    const square = f32x4.mul(x, x);
    const cube = f32x4.mul(square, x);
    const u = f32x4.mul(f32x4.splat(0.7978845608), f32x4.add(x, f32x4.mul(f32x4.splat(0.044715), cube)));
    const share = sigmoid4(f32x4.add(u, u));
    const t = f32x4.sub(f32x4.add(share, share), one);
    const inner = f32x4.mul(f32x4.splat(0.7978845608), f32x4.add(one, f32x4.mul(f32x4.splat(0.134145), square)));
    const rest = f32x4.mul(f32x4.mul(f32x4.mul(half, x), f32x4.sub(one, f32x4.mul(t, t))), inner);
    return f32x4.add(share, rest);
  }
  const share = sigmoid4(x);
  return f32x4.mul(share, f32x4.add(one, f32x4.mul(x, f32x4.sub(one, share))));
}

export function activation(p: Activation): void {
  const id = p.variant & (gated - 1);
  const isGated = (p.variant & gated) != 0;
  const rows = p.count / p.width;
  const each = rowsAtOnce(p.width);
  const rowBytes = <usize>p.width << 2;
  for (let begin = takeSome(each, rows); begin < rows; begin = takeSome(each, rows)) {
    const end = min<u32>(begin + each, rows);
    for (let row = begin; row < end; row++) {
      const hidden = p.hidden + <usize>row * rowBytes;
      const x = p.x + (<usize>(row * p.stride + p.first) << 2);
      const factor = p.x + (<usize>(row * p.stride + p.factor) << 2);
      for (let i: usize = 0; i < rowBytes; i += 16) {
        let y = activation4(id, v128.load(x + i));
        if (isGated) y = f32x4.mul(y, v128.load(factor + i));
        v128.store(hidden + i, y);
      }
    }
  }
}

export function activationBackward(p: ActivationBackward): void {
  const id = p.variant & (gated - 1);
  const isGated = (p.variant & gated) != 0;
  const rows = p.count / p.width;
  const each = rowsAtOnce(p.width);
  const rowBytes = <usize>p.width << 2;
  for (let begin = takeSome(each, rows); begin < rows; begin = takeSome(each, rows)) {
    const end = min<u32>(begin + each, rows);
    for (let row = begin; row < end; row++) {
      const outer = p.outer + <usize>row * rowBytes;
      const first = <usize>(row * p.stride + p.first) << 2;
      const factor = <usize>(row * p.stride + p.factor) << 2;
      for (let i: usize = 0; i < rowBytes; i += 16) {
        const x = v128.load(p.x + first + i);
        const dy = v128.load(outer + i);
        let dx = f32x4.mul(dy, slope4(id, x));
        if (isGated) {
          dx = f32x4.mul(dx, v128.load(p.x + factor + i));
          v128.store(p.gradient + factor + i, f32x4.mul(dy, activation4(id, x)));
        }
        v128.store(p.gradient + first + i, dx);
      }
    }
  }
}

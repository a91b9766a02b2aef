import { sumLanes } from "../math";
import { rowsAtOnce, Step, takeSome } from "./step";

// @ts-ignore: decorator
@unmanaged
export class StateSquares extends Step {
  rows: u32;
  width: u32;
  stride: u32;
  teacherStride: u32;
  squares: usize;
  x: usize;
  teacher: usize;
}

export function stateSquares(p: StateSquares): void {
  const each = rowsAtOnce(p.width);
  const bytes = <usize>p.width << 2;
  for (let begin = takeSome(each, p.rows); begin < p.rows; begin = takeSome(each, p.rows)) {
    const end = min<u32>(begin + each, p.rows);
    for (let row = begin; row < end; row++) {
      const x = p.x + ((<usize>row * p.stride) << 2);
      const teacher = p.teacher + ((<usize>row * p.teacherStride) << 2);
      let away = f32x4.splat(0);
      let theirs = f32x4.splat(0);
      for (let i: usize = 0; i < bytes; i += 16) {
        const y = v128.load(teacher + i);
        const difference = f32x4.sub(v128.load(x + i), y);
        away = f32x4.add(away, f32x4.mul(difference, difference));
        theirs = f32x4.add(theirs, f32x4.mul(y, y));
      }
      const to = p.squares + (<usize>row << 3);
      store<f32>(to, sumLanes(away));
      store<f32>(to, sumLanes(theirs), 4);
    }
  }
}

// @ts-ignore: decorator
@unmanaged
export class StateDifference extends Step {
  rows: u32;
  width: u32;
  offset: u32;
  relative: u32;
  weight: f32;
  measured: usize;
  slope: usize;
  squares: usize;
}

export function stateDifference(p: StateDifference, thread: i32): void {
  if (thread != 0) return;
  let away: f64 = 0;
  let theirs: f64 = 0;
  for (let row: u32 = 0; row < p.rows; row++) {
    const at = p.squares + (<usize>row << 3);
    away += <f64>load<f32>(at);
    theirs += <f64>load<f32>(at, 4);
  }
  const count = <f64>p.rows * <f64>p.width;
  const factor = <f64>p.weight / (p.relative != 0 ? theirs / count + 1e-12 : 1) / count;
  store<f32>(p.measured + (<usize>p.offset << 2), <f32>(factor * away));
  store<f32>(p.slope, <f32>(2 * factor));
}

// @ts-ignore: decorator
@unmanaged
export class StateGradient extends Step {
  count: u32;
  width: u32;
  stride: u32;
  teacherStride: u32;
  toStride: u32;
  accumulate: u32;
  gradient: usize;
  state: usize;
  teacher: usize;
  slope: usize;
}

export function stateGradient(p: StateGradient): void {
  const rows = p.count / p.width;
  const each = rowsAtOnce(p.width);
  const bytes = <usize>p.width << 2;
  const slope = f32x4.splat(load<f32>(p.slope));
  for (let begin = takeSome(each, rows); begin < rows; begin = takeSome(each, rows)) {
    const end = min<u32>(begin + each, rows);
    for (let row = begin; row < end; row++) {
      const to = p.gradient + ((<usize>row * p.toStride) << 2);
      const state = p.state + ((<usize>row * p.stride) << 2);
      const teacher = p.teacher + ((<usize>row * p.teacherStride) << 2);
      for (let i: usize = 0; i < bytes; i += 16) {
        let own = f32x4.mul(slope, f32x4.sub(v128.load(state + i), v128.load(teacher + i)));
        if (p.accumulate != 0) own = f32x4.add(own, v128.load(to + i));
        v128.store(to + i, own);
      }
    }
  }
}

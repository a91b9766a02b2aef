import { sumLanes } from "../math";
import { rowsAtOnce, Step, takeOne, takeSome } from "./step";

// The variant says whether the mean of a run is taken away and a bias, which lies behind the weight, is added.

// @ts-ignore: decorator
@unmanaged
export class Norm extends Step {
  count: u32;
  width: u32;
  runs: u32;
  stride: u32;
  first: u32;
  weight: u32;
  plus: f32;
  epsilon: f32;
  normed: usize;
  statistics: usize;
  x: usize;
  weights: usize;
}

// @ts-ignore: decorator
@unmanaged
export class NormBackward extends Step {
  count: u32;
  width: u32;
  runs: u32;
  stride: u32;
  first: u32;
  toStride: u32;
  toFirst: u32;
  weight: u32;
  plus: f32;
  accumulate: u32;
  gradient: usize;
  outer: usize;
  x: usize;
  statistics: usize;
  weights: usize;
}

// @ts-ignore: decorator
@unmanaged
export class NormWeights extends Step {
  width: u32;
  rows: u32;
  rowsPerPart: u32;
  runs: u32;
  stride: u32;
  first: u32;
  parts: usize;
  outer: usize;
  x: usize;
  statistics: usize;
}

/** Where a run begins among rows of `runs` each. */
// @ts-ignore: decorator
@inline
function startOf(run: u32, runs: u32, stride: u32, first: u32, width: u32): usize {
  return <usize>((run / runs) * stride + first + (run % runs) * width) << 2;
}

export function norm(p: Norm): void {
  const centred = p.variant != 0;
  const bytes = <usize>p.width << 2;
  const statistics: usize = centred ? 8 : 4;
  const each = rowsAtOnce(p.width);
  const weight = p.weights + (<usize>p.weight << 2);
  const plus = f32x4.splat(p.plus);
  for (let begin = takeSome(each, p.count); begin < p.count; begin = takeSome(each, p.count)) {
    const end = min<u32>(begin + each, p.count);
    for (let run = begin; run < end; run++) {
      const x = p.x + startOf(run, p.runs, p.stride, p.first, p.width);
      const normed = p.normed + <usize>run * bytes;
      let mean: f32 = 0;
      if (centred) {
        let sum = f32x4.splat(0);
        for (let i: usize = 0; i < bytes; i += 16) sum = f32x4.add(sum, v128.load(x + i));
        mean = sumLanes(sum) / <f32>p.width;
      }
      const middle = f32x4.splat(mean);
      let squares = f32x4.splat(0);
      for (let i: usize = 0; i < bytes; i += 16) {
        const away = f32x4.sub(v128.load(x + i), middle);
        squares = f32x4.add(squares, f32x4.mul(away, away));
      }
      const inverse = <f32>1 / sqrt<f32>(sumLanes(squares) / <f32>p.width + p.epsilon);
      const scale = f32x4.splat(inverse);
      for (let i: usize = 0; i < bytes; i += 16) {
        const standard = f32x4.mul(f32x4.sub(v128.load(x + i), middle), scale);
        let y = f32x4.mul(standard, f32x4.add(plus, v128.load(weight + i)));
        if (centred) y = f32x4.add(y, v128.load(weight + bytes + i));
        v128.store(normed + i, y);
      }
      const kept = p.statistics + <usize>run * statistics;
      store<f32>(kept, inverse);
      if (centred) store<f32>(kept, mean, 4);
    }
  }
}

export function normBackward(p: NormBackward): void {
  const centred = p.variant != 0;
  const bytes = <usize>p.width << 2;
  const statistics: usize = centred ? 8 : 4;
  const each = rowsAtOnce(p.width);
  const weight = p.weights + (<usize>p.weight << 2);
  const plus = f32x4.splat(p.plus);
  for (let begin = takeSome(each, p.count); begin < p.count; begin = takeSome(each, p.count)) {
    const end = min<u32>(begin + each, p.count);
    for (let run = begin; run < end; run++) {
      const x = p.x + startOf(run, p.runs, p.stride, p.first, p.width);
      const to = p.gradient + startOf(run, p.runs, p.toStride, p.toFirst, p.width);
      const outer = p.outer + <usize>run * bytes;
      const kept = p.statistics + <usize>run * statistics;
      const inverse = f32x4.splat(load<f32>(kept));
      const mean = f32x4.splat(centred ? load<f32>(kept, 4) : 0);
      let sum = f32x4.splat(0);
      let dot = f32x4.splat(0);
      for (let i: usize = 0; i < bytes; i += 16) {
        const g = f32x4.mul(v128.load(outer + i), f32x4.add(plus, v128.load(weight + i)));
        sum = f32x4.add(sum, g);
        dot = f32x4.add(dot, f32x4.mul(g, f32x4.mul(f32x4.sub(v128.load(x + i), mean), inverse)));
      }
      const middle = f32x4.splat(centred ? sumLanes(sum) / <f32>p.width : 0);
      const along = f32x4.splat(sumLanes(dot) / <f32>p.width);
      for (let i: usize = 0; i < bytes; i += 16) {
        const g = f32x4.mul(v128.load(outer + i), f32x4.add(plus, v128.load(weight + i)));
        const standard = f32x4.mul(f32x4.sub(v128.load(x + i), mean), inverse);
        let through = f32x4.mul(inverse, f32x4.sub(f32x4.sub(g, middle), f32x4.mul(standard, along)));
        if (p.accumulate != 0) through = f32x4.add(through, v128.load(to + i));
        v128.store(to + i, through);
      }
    }
  }
}

export function normWeights(p: NormWeights): void {
  const centred = p.variant != 0;
  const bytes = <usize>p.width << 2;
  const statistics: usize = centred ? 8 : 4;
  for (let part = takeOne(p.gridY); part < p.gridY; part = takeOne(p.gridY)) {
    const first = part * p.rowsPerPart;
    const end = min<u32>(first + p.rowsPerPart, p.rows);
    const to = p.parts + <usize>part * bytes * (centred ? 2 : 1);
    memory.fill(to, 0, centred ? 2 * bytes : bytes);
    for (let row = first; row < end; row++) {
      const x = p.x + startOf(row, p.runs, p.stride, p.first, p.width);
      const outer = p.outer + <usize>row * bytes;
      const kept = p.statistics + <usize>row * statistics;
      const inverse = f32x4.splat(load<f32>(kept));
      const mean = f32x4.splat(centred ? load<f32>(kept, 4) : 0);
      for (let i: usize = 0; i < bytes; i += 16) {
        const dy = v128.load(outer + i);
        const standard = f32x4.mul(f32x4.sub(v128.load(x + i), mean), inverse);
        v128.store(to + i, f32x4.add(v128.load(to + i), f32x4.mul(dy, standard)));
        if (centred) v128.store(to + bytes + i, f32x4.add(v128.load(to + bytes + i), dy));
      }
    }
  }
}

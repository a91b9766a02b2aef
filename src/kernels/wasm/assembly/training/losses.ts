import { exp4, sumLanes } from "../math";
import { lanesWithin, largestLane, logOf, nothing, rowsAtOnce, Step, takeSome } from "./step";

// @ts-ignore: decorator
@unmanaged
export class CrossEntropy extends Step {
  classes: u32;
  stride: u32;
  rows: u32;
  known: u32;
  lossOffset: u32;
  logits: usize;
  losses: usize;
  labels: usize;
}

// @ts-ignore: decorator
@unmanaged
export class Divergence extends Step {
  classes: u32;
  stride: u32;
  rows: u32;
  known: u32;
  lossOffset: u32;
  teacherStride: u32;
  share: f32;
  temperature: f32;
  logits: usize;
  losses: usize;
  labels: usize;
  teacher: usize;
}

// Variants of a divergence, as in cpu/forms.ts.
const kl: u32 = 0;
const reverseKl: u32 = 1;

/** Classes j … j + 3 of a row, those behind the last as `filling`. */
// @ts-ignore: decorator
@inline
function classesAt(row: usize, j: i32, classes: i32, filling: f32): v128 {
  const values = v128.load(row + (<usize>j << 2));
  return j + 4 <= classes ? values : v128.bitselect(values, f32x4.splat(filling), lanesWithin(j, 0, classes));
}

function topOf(row: usize, classes: i32): f32 {
  let top = f32x4.splat(nothing);
  for (let j = 0; j < classes; j += 4) top = f32x4.max(top, classesAt(row, j, classes, nothing));
  return largestLane(top);
}

/** Σ exp((x − top) · sharp) */
function sumOf(row: usize, classes: i32, top: f32, sharp: f32): f32 {
  let sum = f32x4.splat(0);
  for (let j = 0; j < classes; j += 4) {
    const away = f32x4.sub(classesAt(row, j, classes, nothing), f32x4.splat(top));
    sum = f32x4.add(sum, exp4(f32x4.mul(away, f32x4.splat(sharp))));
  }
  return sumLanes(sum);
}

/** (x − top) · sharp − logSum */
// @ts-ignore: decorator
@inline
function logShare(x: v128, top: f32, sharp: f32, logSum: f32): v128 {
  return f32x4.sub(f32x4.mul(f32x4.sub(x, f32x4.splat(top)), f32x4.splat(sharp)), f32x4.splat(logSum));
}

export function crossEntropy(p: CrossEntropy): void {
  const classes = <i32>p.classes;
  const each = rowsAtOnce(p.classes);
  const share: f32 = 1 / <f32>p.known;
  for (let begin = takeSome(each, p.rows); begin < p.rows; begin = takeSome(each, p.rows)) {
    const last = min<u32>(begin + each, p.rows);
    for (let number = begin; number < last; number++) {
      const row = p.logits + ((<usize>number * p.stride) << 2);
      const lossAt = p.losses + (<usize>(p.lossOffset + number) << 2);
      const label = load<u32>(p.labels + (<usize>number << 2));
      // A label below 0 is not learnt; one beyond the classes is none.
      if (label >= p.classes) {
        memory.fill(row, 0, <usize>classes << 2);
        store<f32>(lossAt, 0);
        continue;
      }
      const wantedAt = row + (<usize>label << 2);
      const wanted = load<f32>(wantedAt);
      const top = topOf(row, classes);
      const largest = f32x4.splat(top);
      let sums = f32x4.splat(0);
      for (let j = 0; j < classes; j += 4) {
        const e = exp4(f32x4.sub(classesAt(row, j, classes, nothing), largest));
        v128.store(row + (<usize>j << 2), e);
        sums = f32x4.add(sums, e);
      }
      const sum = sumLanes(sums);
      const scale = f32x4.splat(1 / (sum * <f32>p.known));
      for (let j = 0; j < classes; j += 4) {
        const at = row + (<usize>j << 2);
        v128.store(at, f32x4.mul(v128.load(at), scale));
      }
      store<f32>(wantedAt, load<f32>(wantedAt) - share);
      store<f32>(lossAt, logOf(sum) + top - wanted);
    }
  }
}

/** As `crossEntropy`, beside a teacher's logits; see `divergenceKernels`. */
export function divergence(p: Divergence): void {
  const classes = <i32>p.classes;
  const each = rowsAtOnce(4 * p.classes);
  for (let begin = takeSome(each, p.rows); begin < p.rows; begin = takeSome(each, p.rows)) {
    const last = min<u32>(begin + each, p.rows);
    for (let number = begin; number < last; number++) {
      const row = p.logits + ((<usize>number * p.stride) << 2);
      const lossAt = p.losses + (<usize>(p.lossOffset + number) << 2);
      const apartAt = lossAt + (<usize>p.rows << 2);
      const label = load<u32>(p.labels + (<usize>number << 2));
      if (label >= p.classes) {
        memory.fill(row, 0, <usize>classes << 2);
        store<f32>(lossAt, 0);
        store<f32>(apartAt, 0);
        continue;
      }
      const theirs = p.teacher + ((<usize>number * p.teacherStride) << 2);
      const wanted = load<f32>(row + (<usize>label << 2));
      const top = topOf(row, classes);
      const sum = sumOf(row, classes, top, 1);
      store<f32>(lossAt, logOf(sum) + top - wanted);
      store<f32>(apartAt, learnFrom(p, row, theirs, top, 1 / sum, label));
    }
  }
}

/** Logits of a row become their gradient. @returns how far they were from the teacher's */
function learnFrom(p: Divergence, row: usize, theirs: usize, top: f32, inverse: f32, label: u32): f32 {
  const classes = <i32>p.classes;
  const isOfLogits = p.variant > reverseKl;
  const sharp: f32 = 1 / p.temperature;
  let theirTop: f32 = 0;
  let logSum: f32 = 0;
  let theirLogSum: f32 = 0;
  let sums = f32x4.splat(0);
  let mean: f32 = 0;
  let apart: f32 = 0;
  if (isOfLogits) {
    for (let j = 0; j < classes; j += 4) {
      sums = f32x4.add(sums, f32x4.sub(classesAt(row, j, classes, 0), classesAt(theirs, j, classes, 0)));
    }
    mean = sumLanes(sums) / <f32>p.classes;
    let squares = f32x4.splat(0);
    for (let j = 0; j < classes; j += 4) {
      const difference = f32x4.sub(classesAt(row, j, classes, 0), classesAt(theirs, j, classes, 0));
      const away = v128.and(f32x4.sub(difference, f32x4.splat(mean)), lanesWithin(j, 0, classes));
      squares = f32x4.add(squares, f32x4.mul(away, away));
    }
    apart = (<f32>0.5 * sumLanes(squares)) / <f32>p.classes;
  } else {
    theirTop = topOf(theirs, classes);
    logSum = logOf(sumOf(row, classes, top, sharp));
    theirLogSum = logOf(sumOf(theirs, classes, theirTop, sharp));
    for (let j = 0; j < classes; j += 4) {
      const own = logShare(classesAt(row, j, classes, 0), top, sharp, logSum);
      const known = logShare(classesAt(theirs, j, classes, 0), theirTop, sharp, theirLogSum);
      const term = p.variant == kl ? f32x4.mul(exp4(known), f32x4.sub(known, own)) : f32x4.mul(exp4(own), f32x4.sub(own, known));
      sums = f32x4.add(sums, v128.and(term, lanesWithin(j, 0, classes)));
    }
    mean = sumLanes(sums);
    apart = p.temperature * p.temperature * mean;
  }
  const ofText: f32 = (1 - p.share) / <f32>p.known;
  const ofTeacher = p.share / <f32>p.known;
  for (let j = 0; j < classes; j += 4) {
    const z = classesAt(row, j, classes, 0);
    const y = classesAt(theirs, j, classes, 0);
    let slope: v128;
    if (isOfLogits) {
      const away = f32x4.sub(f32x4.sub(z, y), f32x4.splat(mean));
      slope = f32x4.div(away, f32x4.splat(<f32>p.classes));
    } else {
      const own = logShare(z, top, sharp, logSum);
      const known = logShare(y, theirTop, sharp, theirLogSum);
      slope =
        p.variant == kl
          ? f32x4.sub(exp4(own), exp4(known))
          : f32x4.mul(exp4(own), f32x4.sub(f32x4.sub(own, known), f32x4.splat(mean)));
      slope = f32x4.mul(f32x4.splat(p.temperature), slope);
    }
    const text = f32x4.mul(exp4(f32x4.sub(z, f32x4.splat(top))), f32x4.splat(inverse * ofText));
    const gradient = f32x4.add(text, f32x4.mul(f32x4.splat(ofTeacher), slope));
    v128.store(row + (<usize>j << 2), v128.and(gradient, lanesWithin(j, 0, classes)));
  }
  const wantedAt = row + (<usize>label << 2);
  store<f32>(wantedAt, load<f32>(wantedAt) - ofText);
  return apart;
}

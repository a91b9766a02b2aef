import { sumLanes } from "../math";
import { Step, takeOne } from "./step";

// Weights, moments and gradients are seen in fours, each with a word of flags, as src/train/engine has them. A workgroup's share
// of the fours is a run of them: sums are cut where a GPU has workgroups, whatever the number of threads.

const prunable: u32 = 16;
const decays: u32 = 32;

/** First of the fours of a share. */
// @ts-ignore: decorator
@inline
function shareStart(count: u32, share: u32, shares: u32): u32 {
  return <u32>((<u64>count * share) / shares);
}

// @ts-ignore: decorator
@inline
function at16(address: usize, four: u32): usize {
  return address + (<usize>four << 4);
}

// @ts-ignore: decorator
@inline
function flagOf(flags: usize, four: u32): u32 {
  return load<u32>(flags + (<usize>four << 2));
}

/** All bits of the lanes that are kept. */
// @ts-ignore: decorator
@inline
function keptOf(flag: u32): v128 {
  const bits = i32x4(1, 2, 4, 8);
  return i32x4.eq(v128.and(i32x4.splat(<i32>flag), bits), bits);
}

// @ts-ignore: decorator
@unmanaged
export class ChooseMasks extends Step {
  count: u32;
  keep: u32;
  isFirst: u32;
  flags: usize;
  first: usize;
  counters: usize;
  master: usize;
}

export function chooseMasks(p: ChooseMasks): void {
  const shares = p.gridX;
  for (let share = takeOne(shares); share < shares; share = takeOne(shares)) {
    const end = shareStart(p.count, share + 1, shares);
    let flipped: u32 = 0;
    let drifted: u32 = 0;
    for (let four = shareStart(p.count, share, shares); four < end; four++) {
      const flag = flagOf(p.flags, four);
      if ((flag & prunable) == 0) continue;
      let kept: u32 = 0;
      for (let i: u32 = 0; i < 4; i++) {
        const size = abs(load<f32>(at16(p.master, four) + (<usize>i << 2)));
        let larger: u32 = 0;
        for (let j: u32 = 0; j < 4; j++) {
          const other = abs(load<f32>(at16(p.master, four) + (<usize>j << 2)));
          if (other > size || (other == size && j < i)) larger++;
        }
        if (larger < p.keep) kept |= 1 << i;
      }
      const firstAt = p.first + (<usize>four << 2);
      if (p.isFirst != 0) store<u32>(firstAt, kept);
      else flipped += popcnt<u32>((flag & 15) ^ kept);
      drifted += popcnt<u32>(load<u32>(firstAt) ^ kept);
      store<u32>(p.flags + (<usize>four << 2), (flag & ~15) | kept);
    }
    atomic.add<u32>(p.counters, flipped);
    atomic.add<u32>(p.counters + 4, drifted);
  }
}

// @ts-ignore: decorator
@unmanaged
export class MaskWeights extends Step {
  count: u32;
  weights: usize;
  master: usize;
  flags: usize;
}

export function maskWeights(p: MaskWeights): void {
  const shares = p.gridX;
  for (let share = takeOne(shares); share < shares; share = takeOne(shares)) {
    const end = shareStart(p.count, share + 1, shares);
    for (let four = shareStart(p.count, share, shares); four < end; four++) {
      v128.store(at16(p.weights, four), v128.and(v128.load(at16(p.master, four)), keptOf(flagOf(p.flags, four))));
    }
  }
}

// @ts-ignore: decorator
@unmanaged
export class ScaleWeights extends Step {
  count: u32;
  offset: u32;
  width: u32;
  stretches: u32;
  scales: u32;
  weights: usize;
  master: usize;
  scale: usize;
}

export function scaleWeights(p: ScaleWeights): void {
  const rows = p.count / p.width;
  for (let row = takeOne(rows); row < rows; row = takeOne(rows)) {
    const first = <usize>(p.offset + row * p.width) << 2;
    const scales = p.scale + (<usize>(p.scales + row * p.stretches) << 2);
    for (let column: u32 = 0; column < p.width; column++) {
      const at = first + (<usize>column << 2);
      const scale = load<f32>(scales + (<usize>((column * p.stretches) / p.width) << 2));
      store<f32>(p.weights + at, load<f32>(p.master + at) * scale);
    }
  }
}

// @ts-ignore: decorator
@unmanaged
export class ScaleGradients extends Step {
  offset: u32;
  width: u32;
  stretches: u32;
  scales: u32;
  result: u32;
  gradients: usize;
  scaleGradient: usize;
  master: usize;
  scale: usize;
}

export function scaleGradients(p: ScaleGradients): void {
  const rows = p.gridX;
  for (let row = takeOne(rows); row < rows; row = takeOne(rows)) {
    for (let stretch: u32 = 0; stretch < p.stretches; stretch++) {
      const begin = (stretch * p.width + p.stretches - 1) / p.stretches;
      const end = ((stretch + 1) * p.width + p.stretches - 1) / p.stretches;
      const factor = load<f32>(p.scale + (<usize>(p.scales + row * p.stretches + stretch) << 2));
      let sum: f32 = 0;
      for (let column = begin; column < end; column++) {
        const at = <usize>(p.offset + row * p.width + column) << 2;
        const g = load<f32>(p.gradients + at);
        sum += g * load<f32>(p.master + at);
        store<f32>(p.gradients + at, g * factor);
      }
      store<f32>(p.scaleGradient + (<usize>(p.result + row * p.stretches + stretch) << 2), sum);
    }
  }
}

// @ts-ignore: decorator
@unmanaged
export class PrepareGradients extends Step {
  count: u32;
  master: u32;
  part: u32;
  frozen: u32;
  pull: f32;
  gradients: usize;
  parts: usize;
  // In the order of the kernel's buffers; `master` is the parameter's name.
  masterBuffer: usize;
  flags: usize;
}

export function prepareGradients(p: PrepareGradients): void {
  const shares = p.gridX;
  const pull = f32x4.splat(p.pull);
  for (let share = takeOne(shares); share < shares; share = takeOne(shares)) {
    const end = shareStart(p.count, share + 1, shares);
    let sum = f32x4.splat(0);
    for (let four = shareStart(p.count, share, shares); four < end; four++) {
      const kept = keptOf(flagOf(p.flags, p.master + four));
      let g = v128.load(at16(p.gradients, four));
      if (p.frozen != 0) g = v128.and(g, kept);
      else g = f32x4.add(g, v128.andnot(f32x4.mul(pull, v128.load(at16(p.masterBuffer, p.master + four))), kept));
      v128.store(at16(p.gradients, four), g);
      sum = f32x4.add(sum, f32x4.mul(g, g));
    }
    store<f32>(p.parts + (<usize>(p.part + share) << 2), sumLanes(sum));
  }
}

// @ts-ignore: decorator
@unmanaged
export class ClipFactor extends Step {
  parts: u32;
  clip: f32;
  shorten: usize;
  sums: usize;
}

export function clipFactor(p: ClipFactor, thread: i32): void {
  if (thread != 0) return;
  let sum: f32 = 0;
  for (let i: u32 = 0; i < p.parts; i++) sum += load<f32>(p.sums + (<usize>i << 2));
  store<f32>(p.shorten, min<f32>(1, p.clip / max<f32>(sqrt<f32>(sum), 1.0e-30)));
}

// @ts-ignore: decorator
@unmanaged
export class AdamStep extends Step {
  count: u32;
  first: u32;
  frozen: u32;
  beta1: f32;
  beta2: f32;
  epsilon: f32;
  meanCorrection: f32;
  squareCorrection: f32;
  rate: f32;
  decay: f32;
  keepMean: f32;
  pullWeight: f32;
  pullSign: f32;
  squaresMeans: u32;
  master: usize;
  mean: usize;
  square: usize;
  gradients: usize;
  flags: usize;
  shorten: usize;
}

/** −1, 0 or 1. */
// @ts-ignore: decorator
@inline
function sign4(x: v128): v128 {
  const one = v128.or(f32x4.splat(1), v128.and(x, i32x4.splat(<i32>0x80000000)));
  return v128.and(one, f32x4.ne(x, f32x4.splat(0)));
}

export function adamStep(p: AdamStep): void {
  const shares = p.gridX;
  const shorten = f32x4.splat(load<f32>(p.shorten));
  const beta1 = f32x4.splat(p.beta1);
  const beta2 = f32x4.splat(p.beta2);
  const rest1 = f32x4.splat(1 - p.beta1);
  const rest2 = f32x4.splat(1 - p.beta2);
  const pulls = p.keepMean != 1 || p.pullWeight != 0 || p.pullSign != 0;
  for (let share = takeOne(shares); share < shares; share = takeOne(shares)) {
    const end = shareStart(p.count, share + 1, shares);
    for (let four = shareStart(p.count, share, shares); four < end; four++) {
      const i = p.first + four;
      const flag = flagOf(p.flags, i);
      const kept = keptOf(flag);
      const w = v128.load(at16(p.master, i));
      const g = f32x4.mul(v128.load(at16(p.gradients, four)), shorten);
      const m = f32x4.add(f32x4.mul(beta1, v128.load(at16(p.mean, i))), f32x4.mul(rest1, g));
      let pulled = m;
      if (pulls) {
        let other = f32x4.mul(f32x4.splat(p.keepMean), m);
        other = f32x4.add(other, f32x4.mul(f32x4.splat(p.pullWeight), w));
        other = f32x4.add(other, f32x4.mul(f32x4.splat(p.pullSign), sign4(w)));
        pulled = v128.bitselect(m, other, kept);
      }
      const squared = p.squaresMeans != 0 ? pulled : g;
      const v = f32x4.add(f32x4.mul(beta2, v128.load(at16(p.square, i))), f32x4.mul(rest2, f32x4.mul(squared, squared)));
      const root = f32x4.add(f32x4.sqrt(f32x4.mul(v, f32x4.splat(p.squareCorrection))), f32x4.splat(p.epsilon));
      const step = f32x4.div(f32x4.mul(pulled, f32x4.splat(p.meanCorrection)), root);
      const decay = f32x4.splat((flag & decays) != 0 ? p.decay : 0);
      const next = f32x4.sub(w, f32x4.mul(f32x4.splat(p.rate), f32x4.add(step, f32x4.mul(decay, w))));
      v128.store(at16(p.mean, i), m);
      v128.store(at16(p.square, i), v);
      v128.store(at16(p.master, i), p.frozen != 0 ? v128.and(next, kept) : next);
    }
  }
}

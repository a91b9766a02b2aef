import { exp4, sumLanes } from "../math";
import { logOf, rowsAtOnce, Step, takeOne, takeSome } from "./step";

/** In place of the number of a choice: the slot is only filled up. */
const none: u32 = 0xffffffff;
/** As `tileRows` of the products: the rows of an expert begin at a multiple. */
const tileRows: u32 = 64;

// @ts-ignore: decorator
@unmanaged
export class Route extends Step {
  count: u32;
  stride: u32;
  experts: u32;
  perToken: u32;
  normalise: u32;
  factor: f32;
  choices: usize;
  gates: usize;
  logits: usize;
}

// @ts-ignore: decorator
@unmanaged
export class RouteBackward extends Step {
  count: u32;
  stride: u32;
  experts: u32;
  perToken: u32;
  normalise: u32;
  factor: f32;
  balance: f32;
  z: f32;
  logits: usize;
  penalties: usize;
  outer: usize;
  gates: usize;
  choices: usize;
  runs: usize;
}

// @ts-ignore: decorator
@inline
function at(address: usize, index: u32): usize {
  return address + (<usize>index << 2);
}

/** eˣ of one number, as `exp4`. */
function exp1(x: f32): f32 {
  return f32x4.extract_lane(exp4(f32x4.splat(x)), 0);
}

function topOf(row: usize, experts: u32): f32 {
  let top: f32 = -3.0e38;
  for (let e: u32 = 0; e < experts; e++) top = max<f32>(top, load<f32>(at(row, e)));
  return top;
}

function sumOf(row: usize, experts: u32, top: f32): f32 {
  let sum: f32 = 0;
  for (let e: u32 = 0; e < experts; e++) sum += exp1(load<f32>(at(row, e)) - top);
  return sum;
}

export function route(p: Route): void {
  const each = rowsAtOnce(16 * p.experts);
  for (let begin = takeSome(each, p.count); begin < p.count; begin = takeSome(each, p.count)) {
    const end = min<u32>(begin + each, p.count);
    for (let token = begin; token < end; token++) {
      const row = at(p.logits, token * p.stride);
      const top = topOf(row, p.experts);
      const sum = sumOf(row, p.experts, top);
      const choices = at(p.choices, token * p.perToken);
      const gates = at(p.gates, token * p.perToken);
      let chosen: f32 = 0;
      let last: f32 = 0;
      let lastChoice: u32 = 0;
      for (let j: u32 = 0; j < p.perToken; j++) {
        let best: f32 = -3.0e38;
        let choice: u32 = 0;
        for (let e: u32 = 0; e < p.experts; e++) {
          const logit = load<f32>(at(row, e));
          const isOpen = j == 0 || logit < last || (logit == last && e > lastChoice);
          if (isOpen && logit > best) {
            best = logit;
            choice = e;
          }
        }
        const score = exp1(best - top) / sum;
        store<u32>(at(choices, j), choice);
        store<f32>(at(gates, j), score);
        chosen += score;
        last = best;
        lastChoice = choice;
      }
      const scale = p.factor / (p.normalise != 0 ? chosen : 1);
      for (let j: u32 = 0; j < p.perToken; j++) store<f32>(at(gates, j), load<f32>(at(gates, j)) * scale);
    }
  }
}

export function routeBackward(p: RouteBackward): void {
  const each = rowsAtOnce(16 * p.experts);
  const loads = at(p.runs, p.experts + 1);
  const isNormalised = p.normalise != 0;
  for (let begin = takeSome(each, p.count); begin < p.count; begin = takeSome(each, p.count)) {
    const end = min<u32>(begin + each, p.count);
    for (let token = begin; token < end; token++) {
      const row = at(p.logits, token * p.stride);
      const top = topOf(row, p.experts);
      const sum = sumOf(row, p.experts, top);
      const choices = at(p.choices, token * p.perToken);
      const gates = at(p.gates, token * p.perToken);
      const outer = at(p.outer, token * p.perToken);
      let chosen: f32 = 0;
      let mean: f32 = 0;
      for (let j: u32 = 0; j < p.perToken; j++) {
        chosen += exp1(load<f32>(at(row, load<u32>(at(choices, j)))) - top) / sum;
        mean += load<f32>(at(gates, j)) * load<f32>(at(outer, j));
      }
      if (!isNormalised) mean = 0;
      const scale: f32 = 1 / (isNormalised ? chosen : 1);
      let dot: f32 = 0;
      for (let j: u32 = 0; j < p.perToken; j++) {
        const score = exp1(load<f32>(at(row, load<u32>(at(choices, j)))) - top) / sum;
        dot += score * scale * (p.factor * load<f32>(at(outer, j)) - mean);
      }
      let penalty: f32 = 0;
      for (let e: u32 = 0; e < p.experts; e++) {
        penalty += (exp1(load<f32>(at(row, e)) - top) / sum) * p.balance * <f32>load<u32>(at(loads, e));
      }
      const size = top + logOf(sum);
      store<f32>(at(p.penalties, token), penalty + p.z * size * size);
      for (let e: u32 = 0; e < p.experts; e++) {
        let slope = p.balance * <f32>load<u32>(at(loads, e)) - penalty - dot + 2 * p.z * size;
        for (let j: u32 = 0; j < p.perToken; j++) {
          if (load<u32>(at(choices, j)) == e) slope += scale * (p.factor * load<f32>(at(outer, j)) - mean);
        }
        store<f32>(at(row, e), (exp1(load<f32>(at(row, e)) - top) / sum) * slope);
      }
      for (let e = p.experts; e < p.stride; e++) store<f32>(at(row, e), 0);
    }
  }
}

// @ts-ignore: decorator
@unmanaged
export class Place extends Step {
  pairs: u32;
  experts: u32;
  rows: u32;
  loads: u32;
  slots: usize;
  // In the order of the kernel's buffers; `pairs` is the parameter's name.
  pairsBuffer: usize;
  runs: usize;
  measured: usize;
  choices: usize;
}

function filledUp(load: u32): u32 {
  return ((load + tileRows - 1) / tileRows) * tileRows;
}

/** By counting, on one thread: there are few choices beside the products of the experts. */
export function place(p: Place, thread: i32): void {
  if (thread != 0) return;
  const loads = at(p.runs, p.experts + 1);
  memory.fill(loads, 0, <usize>p.experts << 2);
  for (let i: u32 = 0; i < p.pairs; i++) {
    const own = at(loads, load<u32>(at(p.choices, i)));
    store<u32>(own, load<u32>(own) + 1);
  }
  let next: u32 = 0;
  for (let e: u32 = 0; e < p.experts; e++) {
    store<u32>(at(p.runs, e), next);
    const count = load<u32>(at(loads, e));
    store<f32>(at(p.measured, p.loads + e), <f32>count);
    const end = e + 1 == p.experts ? p.rows : next + filledUp(count);
    // Slots that are filled up and, behind them, those that nobody has.
    memory.fill(at(p.pairsBuffer, next + count), 0xff, <usize>(end - next - count) << 2);
    next += filledUp(count);
  }
  store<u32>(at(p.runs, p.experts), next);
  // While choices are placed, a run says where its next one goes; after that it begins as far before as it has choices.
  for (let i: u32 = 0; i < p.pairs; i++) {
    const run = at(p.runs, load<u32>(at(p.choices, i)));
    const slot = load<u32>(run);
    store<u32>(run, slot + 1);
    store<u32>(at(p.slots, i), slot);
    store<u32>(at(p.pairsBuffer, slot), i);
  }
  for (let e: u32 = 0; e < p.experts; e++) {
    store<u32>(at(p.runs, e), load<u32>(at(p.runs, e)) - load<u32>(at(loads, e)));
  }
}

// @ts-ignore: decorator
@unmanaged
export class ToSlots extends Step {
  count: u32;
  width: u32;
  perToken: u32;
  y: usize;
  x: usize;
  pairs: usize;
}

// @ts-ignore: decorator
@unmanaged
export class ToSlotsGated extends Step {
  count: u32;
  width: u32;
  perToken: u32;
  y: usize;
  x: usize;
  pairs: usize;
  gates: usize;
}

// @ts-ignore: decorator
@unmanaged
export class FromSlots extends Step {
  count: u32;
  width: u32;
  perToken: u32;
  accumulate: u32;
  y: usize;
  x: usize;
  slots: usize;
}

// @ts-ignore: decorator
@unmanaged
export class FromSlotsGated extends Step {
  count: u32;
  width: u32;
  perToken: u32;
  add: u32;
  y: usize;
  x: usize;
  slots: usize;
  gates: usize;
  base: usize;
}

// @ts-ignore: decorator
@unmanaged
export class GateGradient extends Step {
  count: u32;
  width: u32;
  perToken: u32;
  gradient: usize;
  outer: usize;
  x: usize;
  slots: usize;
}

/** @param gates 0: none */
function fillSlots(p: ToSlots, gates: usize): void {
  const rows = p.count / p.width;
  const rowBytes = <usize>p.width << 4;
  const each = rowsAtOnce(p.width << 2);
  for (let begin = takeSome(each, rows); begin < rows; begin = takeSome(each, rows)) {
    const end = min<u32>(begin + each, rows);
    for (let slot = begin; slot < end; slot++) {
      const y = p.y + <usize>slot * rowBytes;
      const pair = load<u32>(at(p.pairs, slot));
      if (pair == none) {
        memory.fill(y, 0, rowBytes);
        continue;
      }
      const x = p.x + <usize>(pair / p.perToken) * rowBytes;
      const gate = f32x4.splat(gates == 0 ? 1 : load<f32>(at(gates, pair)));
      for (let i: usize = 0; i < rowBytes; i += 16) v128.store(y + i, f32x4.mul(gate, v128.load(x + i)));
    }
  }
}

export function toSlots(p: ToSlots): void {
  fillSlots(p, 0);
}

export function toSlotsGated(p: ToSlotsGated): void {
  fillSlots(changetype<ToSlots>(p), p.gates);
}

/** y = Σ of the slots of each token, times their gates, + base. @param gates, base 0: none */
function addSlots(p: FromSlots, gates: usize, base: usize): void {
  const rows = p.count / p.width;
  const rowBytes = <usize>p.width << 4;
  const each = rowsAtOnce(p.width << 2);
  for (let begin = takeSome(each, rows); begin < rows; begin = takeSome(each, rows)) {
    const end = min<u32>(begin + each, rows);
    for (let token = begin; token < end; token++) {
      const row = <usize>token * rowBytes;
      for (let i: usize = 0; i < rowBytes; i += 16) {
        let sum = f32x4.splat(0);
        for (let j = token * p.perToken; j < (token + 1) * p.perToken; j++) {
          const x = v128.load(p.x + <usize>load<u32>(at(p.slots, j)) * rowBytes + i);
          sum = f32x4.add(sum, gates == 0 ? x : f32x4.mul(f32x4.splat(load<f32>(at(gates, j))), x));
        }
        if (base != 0) sum = f32x4.add(sum, v128.load(base + row + i));
        v128.store(p.y + row + i, sum);
      }
    }
  }
}

export function fromSlots(p: FromSlots): void {
  addSlots(p, 0, p.accumulate != 0 ? p.y : 0);
}

export function fromSlotsGated(p: FromSlotsGated): void {
  addSlots(changetype<FromSlots>(p), p.gates, p.add != 0 ? p.base : 0);
}

export function gateGradient(p: GateGradient): void {
  const each = rowsAtOnce(p.width);
  for (let begin = takeSome(each, p.count); begin < p.count; begin = takeSome(each, p.count)) {
    const end = min<u32>(begin + each, p.count);
    for (let pair = begin; pair < end; pair++) {
      const outer = at(p.outer, (pair / p.perToken) * p.width);
      const x = at(p.x, load<u32>(at(p.slots, pair)) * p.width);
      let dot = f32x4.splat(0);
      for (let i: u32 = 0; i < p.width; i += 4) {
        dot = f32x4.add(dot, f32x4.mul(v128.load(at(outer, i)), v128.load(at(x, i))));
      }
      store<f32>(at(p.gradient, pair), sumLanes(dot));
    }
  }
}

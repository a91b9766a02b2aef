import { AppendKv, MoveKv } from "./generated/records";
import { shareStart } from "./elementwise";

export function appendKv(a: AppendKv, thread: i32): void {
  const heads = a.kvHeads;
  const total = a.rows * heads;
  const keyBytes = (<usize>a.keyDim) << 2;
  const valueBytes = (<usize>a.valueDim) << 2;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const row = n / heads;
    const head = n % heads;
    const slot = <usize>(head * a.slots + a.start + row);
    memory.copy(a.keys + slot * keyBytes, a.k + ((<usize>(row * a.kStride)) << 2) + (<usize>head) * keyBytes, keyBytes);
    memory.copy(a.values + slot * valueBytes, a.v + ((<usize>(row * a.vStride)) << 2) + (<usize>head) * valueBytes, valueBytes);
    if (a.mass != 0) store<f32>(a.mass + (slot << 2), 0);
  }
}

export function moveKv(a: MoveKv, thread: i32): void {
  const keyBytes = (<usize>a.keyDim) << 2;
  const valueBytes = (<usize>a.valueDim) << 2;
  for (let n = shareStart(a.movesLength, thread); n < shareStart(a.movesLength, thread + 1); n++) {
    const move = a.moves(n);
    const source = <usize>(move.head * a.slots + move.from);
    const target = <usize>(move.head * a.slots + move.to);
    if (source != target) {
      memory.copy(a.keys + target * keyBytes, a.keys + source * keyBytes, keyBytes);
      memory.copy(a.values + target * valueBytes, a.values + source * valueBytes, valueBytes);
      if (a.mass != 0) store<f32>(a.mass + (target << 2), load<f32>(a.mass + (source << 2)));
    }
    if (a.cos != 0) turn(a, a.keys + target * keyBytes, keyBytes, move.turn);
  }
}

function turn(a: MoveKv, key: usize, bytes: usize, by: i32): void {
  const half = bytes >> 1;
  const at = <usize>abs(by) * half;
  for (let i: usize = 0; i < half; i += 4) {
    const u = load<f32>(key + i);
    const v = load<f32>(key + half + i);
    const c = load<f32>(a.cos + at + i);
    const s = by < 0 ? -load<f32>(a.sin + at + i) : load<f32>(a.sin + at + i);
    store<f32>(key + i, u * c - v * s);
    store<f32>(key + half + i, v * c + u * s);
  }
}

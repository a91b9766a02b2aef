import { AppendKv, MoveKv } from "./generated/records";
import { shareStart, turnPairs } from "./elementwise";

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
  const keyBytes = a.keyBytes;
  const valueBytes = a.valueBytes;
  for (let n = shareStart(a.movesLength, thread); n < shareStart(a.movesLength, thread + 1); n++) {
    const move = a.moves(n);
    const source = <usize>(move.head * a.slots + move.from);
    const target = <usize>(move.head * a.slots + move.to);
    if (source != target) {
      memory.copy(a.keys + target * keyBytes, a.keys + source * keyBytes, keyBytes);
      memory.copy(a.values + target * valueBytes, a.values + source * valueBytes, valueBytes);
      moveWord(a.keyScales, source, target);
      moveWord(a.valueScales, source, target);
      moveWord(a.mass, source, target);
    }
    if (a.cos != 0) {
      const angle = (<usize>(abs(move.turn) * a.half)) << 2;
      const key = a.keys + target * keyBytes + ((<usize>a.first) << 2);
      turnPairs(key, a.half, a.step, a.apart, a.cos + angle, a.sin + angle, move.turn < 0);
    }
  }
}

function moveWord(words: usize, source: usize, target: usize): void {
  if (words != 0) store<u32>(words + (target << 2), load<u32>(words + (source << 2)));
}

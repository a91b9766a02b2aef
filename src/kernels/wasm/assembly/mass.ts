import { codedHeadsBytes, rowsOfGroup, slotsOfBlock } from "../../program/layout";
import { fullBlock, placeHead, sumEach } from "./attention";
import { AttentionMass } from "./generated/records";
import { CodedHead, unpackHead } from "./kvCodes";
import { exp4, mulAdd, softcap4 } from "./math";
import { takeWork } from "./sync";

/**
 * The second pass of flash attention over the same scores: exp(score − maximum) / sum is what a query gave to a slot. A work
 * item is one key block of one key head, so that no two threads add to the same slot, and sums are in the order of rows.
 */
export function attentionMass(a: AttentionMass, thread: i32): void {
  const used = a.used;
  const blocks = (used + slotsOfBlock - 1) / slotsOfBlock;
  for (let item = takeWork(); item < a.kvHeads * blocks; item = takeWork()) {
    addBlock(a, item % a.kvHeads, item / a.kvHeads, a.scratch + <usize>(thread * a.scratchBytes));
  }
}

function addBlock(a: AttentionMass, head: i32, block: i32, scratch: usize): void {
  const shared = a.queryHeads / a.kvHeads;
  const bytes = (<usize>a.keyDim) << 2;
  const firstSlot = block * slotsOfBlock;
  const lastSlot = min(firstSlot + slotsOfBlock, a.used) - 1;
  let keys = a.keys + <usize>(head * a.slots) * bytes;
  if (a.codeBits > 0) {
    const coded = changetype<CodedHead>(scratch);
    placeHead(coded, head, a.slots, a.keys, a.keyScales, a.keyRing, a.keyDim, a.kivi, a.kivi ? 1 : a.keyDim, a.codeBits, a.coded, a.ring);
    unpackHead(coded, firstSlot, lastSlot + 1 - firstSlot, scratch + codedHeadsBytes);
    // Where the key of slot 0 would lie.
    keys = scratch + codedHeadsBytes - <usize>firstSlot * bytes;
  }
  const mass = a.mass + ((<usize>(head * a.slots)) << 2);
  let mask: i64 = -1;
  for (let row = 0; row < a.rows; row++) {
    if (a.tableOfHead != 0 && row % rowsOfGroup == 0) mask = maskOf(a, row / rowsOfGroup, block);
    for (let slot = firstSlot; slot <= lastSlot; slot += 4) {
      let given = f32x4.splat(0);
      for (let h = 0; h < shared; h++) {
        const seen = a.tableOfHead == 0 ? bitsInOrder(a, row, firstSlot) : bitsOf(a, mask, row, head * shared + h);
        const four = (seen >> <u32>(slot - firstSlot)) & 15;
        if (four == 0) continue;
        const query = a.q + ((<usize>(row * a.qStride)) << 2) + <usize>(head * shared + h) * bytes;
        const state = a.states + ((<usize>(row * a.queryHeads + head * shared + h)) << 3);
        const plain = f32x4.mul(dots(query, keys, slot, lastSlot, bytes), f32x4.splat(a.scale));
        const scores = a.softcap > 0 ? softcap4(plain, a.softcap) : plain;
        const weights = exp4(f32x4.sub(scores, f32x4.splat(load<f32>(state))));
        const visible = i32x4.ne(v128.and(i32x4.splat(four), i32x4(1, 2, 4, 8)), i32x4.splat(0));
        const shares = v128.and(f32x4.div(weights, f32x4.splat(load<f32>(state, 4))), visible);
        given = a.largest ? f32x4.max(given, shares) : f32x4.add(given, shares);
      }
      // Slots beyond the last are nobody's yet, or another head's.
      for (let s = slot; s <= min(slot + 3, lastSlot); s++) {
        const at = mass + ((<usize>s) << 2);
        store<f32>(at, load<f32>(at) + f32x4.extract_lane(given, 0));
        given = v128.shuffle<i32>(given, given, 1, 2, 3, 0);
      }
    }
  }
}

/** The mask of a block in the list of a group of rows; −1 where it is not listed. */
function maskOf(a: AttentionMass, group: i32, block: i32): i64 {
  const list = a.lists + ((<usize>group) << 2);
  const end = a.blocks + ((<usize>load<u32>(list, 4)) << 3);
  for (let entry = a.blocks + ((<usize>load<u32>(list)) << 3); entry < end; entry += 8) {
    if (load<i32>(entry) == block) return <i64>load<u32>(entry, 4);
  }
  return -1;
}

/** Bits of the slots of a block that a query sees by a mask. */
function bitsOf(a: AttentionMass, mask: i64, row: i32, queryHead: i32): u32 {
  if (mask < 0) return 0;
  if (<u32>mask == fullBlock) return fullBlock;
  const table = load<u32>(a.tableOfHead + ((<usize>queryHead) << 2));
  return load<u32>(a.bits + ((<usize>((<u32>mask * <u32>a.tables + table) * <u32>rowsOfGroup + <u32>(row % rowsOfGroup))) << 2));
}

/** Bits of the slots of a block from `firstSlot` on that a row sees in their order. */
function bitsInOrder(a: AttentionMass, row: i32, firstSlot: i32): u32 {
  const own = a.start + (a.causal ? row : a.rows - 1);
  const end = min(own + 1 - firstSlot, slotsOfBlock);
  const begin = a.window > 0 ? max(own + 1 - a.window - firstSlot, 0) : 0;
  if (end <= begin) return 0;
  return (fullBlock >> <u32>(32 - (end - begin))) << <u32>begin;
}

/** q · keys of four slots; those beyond the last are the last again. */
// @ts-ignore: decorator
@inline
function dots(query: usize, keys: usize, slot: i32, last: i32, bytes: usize): v128 {
  const k0 = keys + <usize>slot * bytes;
  const k1 = keys + <usize>min(slot + 1, last) * bytes;
  const k2 = keys + <usize>min(slot + 2, last) * bytes;
  const k3 = keys + <usize>min(slot + 3, last) * bytes;
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let a2 = a0;
  let a3 = a0;
  for (let i: usize = 0; i < bytes; i += 16) {
    const q = v128.load(query + i);
    a0 = mulAdd(v128.load(k0 + i), q, a0);
    a1 = mulAdd(v128.load(k1 + i), q, a1);
    a2 = mulAdd(v128.load(k2 + i), q, a2);
    a3 = mulAdd(v128.load(k3 + i), q, a3);
  }
  return sumEach(a0, a1, a2, a3);
}

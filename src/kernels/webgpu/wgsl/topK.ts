import { kernel, read, readWrite } from "../kernel.js";

/** Values of one row that one workgroup looks through. */
export const topKChunk = 4096;

const threads = 256;

/** What stands for NaN: before infinity, so that the largest value shows it. */
export const nanKey = 0xfffffffe;

/** Same order as the values, as unsigned integers; −0 counts as 0. Key 0 is no value at all. */
export const orderedKey = /* wgsl */ `
fn orderedKey(bits: u32) -> u32 {
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return ${nanKey}u; }
  if ((bits & 0x7fffffffu) == 0u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}`;

/**
 * The k largest of a row, as pairs of id and bits. The first pass takes values, a chunk of the row per workgroup; the second
 * takes the pairs of all chunks. A round finds the best that comes after the winner of the round before; a thread looks
 * through its values again only after it has won.
 */
const select = (name: string, sourceType: "f32" | "u32", load: string) =>
  kernel({
    name,
    params: { count: "u32", perGroup: "u32", k: "u32", offset: "u32", stride: "u32", outStride: "u32" },
    buffers: { outs: readWrite("u32"), source: read(sourceType) },
    code: /* wgsl */ `
${orderedKey}
struct Entry { key: u32, id: u32, bits: u32 }
const NONE = Entry(0u, 0xffffffffu, 0u);
var<workgroup> keys: array<u32, ${threads}>;
var<workgroup> ids: array<u32, ${threads}>;
/** Whether a comes before b: a larger value, or the same and a lower id. */
fn before(a: Entry, b: Entry) -> bool { return a.key > b.key || (a.key == b.key && a.id < b.id); }
fn load(row: u32, i: u32) -> Entry { ${load} }
fn best(row: u32, begin: u32, end: u32, last: Entry) -> Entry {
  var found = NONE;
  for (var i = begin; i < end; i += ${threads}u) {
    let entry = load(row, i);
    if (before(last, entry) && before(entry, found)) { found = entry; }
  }
  return found;
}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let begin = workgroup.x * p.perGroup + t;
  let end = min(p.count, (workgroup.x + 1u) * p.perGroup);
  var own = best(workgroup.y, begin, end, Entry(0xffffffffu, 0u, 0u));
  for (var round = 0u; round < p.k; round += 1u) {
    keys[t] = own.key;
    ids[t] = own.id;
    for (var half = ${threads / 2}u; half > 0u; half /= 2u) {
      workgroupBarrier();
      if (t < half && before(Entry(keys[t + half], ids[t + half], 0u), Entry(keys[t], ids[t], 0u))) {
        keys[t] = keys[t + half];
        ids[t] = ids[t + half];
      }
    }
    workgroupBarrier();
    let winner = Entry(keys[0], ids[0], 0u);
    workgroupBarrier();
    let at = workgroup.y * p.outStride + (workgroup.x * p.k + round) * 2u;
    if (winner.key == 0u) {
      if (t == 0u) { outs[at] = winner.id; }
    } else if (own.id == winner.id) {
      outs[at] = own.id;
      outs[at + 1u] = own.bits;
      own = best(workgroup.y, begin, end, own);
    }
  }
}`,
  });

/** From the values of a row. */
export const topKFirst = select(
  "topKFirst",
  "f32",
  "let bits = bitcast<u32>(source[p.offset + row * p.stride + i]); return Entry(orderedKey(bits), i, bits);",
);

/** From the pairs that `topKFirst` left. */
export const topKMerge = select(
  "topKMerge",
  "u32",
  /* wgsl */ `
  let at = p.offset + row * p.stride + 2u * i;
  if (source[at] == NONE.id) { return NONE; }
  return Entry(orderedKey(source[at + 1u]), source[at], source[at + 1u]);`,
);

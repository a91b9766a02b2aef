import { kernel, read, readWrite } from "../../../kernels/internal.js";

/**
 * Exact top-s as the host finds it (`selection/topS.ts`), on the device. The order of two entries is that of 63 bits: the
 * magnitude's, then those of the index turned round, so that of equal magnitudes the first is the largest. Histograms of 10 or 11
 * bits, from the highest, close in on the s-th largest key of each budget.
 */
export const digits = [
  { word: 0, shift: 20, bits: 11 },
  { word: 0, shift: 10, bits: 10 },
  { word: 0, shift: 0, bits: 10 },
  { word: 1, shift: 21, bits: 11 },
  { word: 1, shift: 10, bits: 11 },
  { word: 1, shift: 0, bits: 10 },
] as const;

export const bins = 2048;

/** u32 of a stretch of consecutive entries: [offset, length, budget, index of the first one in the budget]. */
export const stretchWords = 4;
/** u32 of a search: [magnitude, turned index] as far as they are known, how many are still to be kept, how many at first. */
export const searchWords = 4;

const threads = 256;

/** Each entry `at` of stretch `workgroup.y` with its key; grid: [some, stretches]. */
const eachKey = (body: string) => /* wgsl */ `
  let stretch = ${stretchWords}u * workgroup.y;
  let offset = stretches[stretch];
  let length = stretches[stretch + 1u];
  let budget = stretches[stretch + 2u];
  let first = stretches[stretch + 3u];
  let search = ${searchWords}u * budget;
  for (var i = workgroup.x * ${threads}u + t; i < length; i += groups.x * ${threads}u) {
    let at = offset + i;
    let key = vec2<u32>(values[at] & 0x7fffffffu, ~(first + i));
    ${body}
  }`;

const begin = /* wgsl */ `
@compute @workgroup_size(${threads})
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) t: u32,
)`;

/** Counts the digits of the keys that begin as the one that is sought. */
export const countDigits = kernel({
  name: "train count digits",
  params: { word: "u32", shift: "u32", bits: "u32" },
  buffers: { counts: readWrite("atomic<u32>"), values: read("u32"), stretches: read("u32"), searches: read("u32") },
  code: /* wgsl */ `
var<workgroup> own: array<atomic<u32>, ${bins}>;
/** What comes before the digit; a shift by all 32 bits would not be defined. */
fn above(key: u32) -> u32 { return (key >> p.shift) >> p.bits; }
${begin} {
  for (var bin = t; bin < ${bins}u; bin += ${threads}u) { atomicStore(&own[bin], 0u); }
  workgroupBarrier();
  ${eachKey(`
    let sameSize = (p.word == 0u) | (key.x == searches[search]);
    if (sameSize & (above(key[p.word]) == above(searches[search + p.word]))) { atomicAdd(&own[(key[p.word] >> p.shift) & ((1u << p.bits) - 1u)], 1u); }`)}
  workgroupBarrier();
  for (var bin = t; bin < ${bins}u; bin += ${threads}u) {
    let count = atomicLoad(&own[bin]);
    if (count > 0u) { atomicAdd(&counts[budget * ${bins}u + bin], count); }
  }
}`,
});

/** Fixes the digit of each budget's key by its histogram, and clears that; one workgroup per budget. */
export const pickDigit = kernel({
  name: "train pick digit",
  params: { word: "u32", shift: "u32", isFirst: "u32" },
  buffers: { counts: readWrite("u32"), searches: readWrite("u32") },
  code: /* wgsl */ `
var<workgroup> sums: array<u32, ${threads}>;
const each = ${bins / threads}u;
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let base = workgroup.x * ${bins}u;
  var sum = 0u;
  for (var i = 0u; i < each; i += 1u) { sum += counts[base + t * each + i]; }
  sums[t] = sum;
  workgroupBarrier();
  if (t == 0u) {
    let search = ${searchWords}u * workgroup.x;
    if (p.isFirst != 0u) {
      searches[search] = 0u;
      searches[search + 1u] = 0u;
      searches[search + 2u] = searches[search + 3u];
    }
    var left = searches[search + 2u];
    var some = ${threads - 1}u;
    while (some > 0u) {
      if (sums[some] >= left) { break; }
      left -= sums[some];
      some -= 1u;
    }
    var digit = some * each + each - 1u;
    while (digit > some * each) {
      if (counts[base + digit] >= left) { break; }
      left -= counts[base + digit];
      digit -= 1u;
    }
    searches[search + p.word] |= digit << p.shift;
    searches[search + 2u] = left;
  }
  storageBarrier();
  workgroupBarrier();
  for (var i = 0u; i < each; i += 1u) { counts[base + t * each + i] = 0u; }
}`,
});

/** What is below the key of its budget becomes 0; counts what is not 0 after. */
export const cutBelow = kernel({
  name: "train cut below",
  params: { counter: "u32" },
  buffers: {
    values: readWrite("u32"),
    counters: readWrite("atomic<u32>"),
    stretches: read("u32"),
    searches: read("u32"),
  },
  code: /* wgsl */ `
var<workgroup> kept: atomic<u32>;
${begin} {
  if (t == 0u) { atomicStore(&kept, 0u); }
  workgroupBarrier();
  ${eachKey(`
    let least = vec2<u32>(searches[search], searches[search + 1u]);
    if ((key.x > least.x) | ((key.x == least.x) & (key.y >= least.y))) {
      if (key.x != 0u) { atomicAdd(&kept, 1u); }
    } else { values[at] = 0u; }`)}
  workgroupBarrier();
  if (t == 0u) { atomicAdd(&counters[p.counter], atomicLoad(&kept)); }
}`,
});

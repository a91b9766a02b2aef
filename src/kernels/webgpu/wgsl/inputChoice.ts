import { kernel, read, readWrite } from "../kernel.js";

/**
 * The inputs of largest magnitude of every run of columns: one workgroup a run, one grid row per row. Magnitudes order like their
 * bits without the sign: 31 looks at the run find those of the last one kept, and more the place of the last of its equals.
 * @param by how many are kept, or what share of the sum of all magnitudes
 * @param threads of a workgroup, a power of two
 */
export const keepLargest = (by: "count" | "mass", threads: number) => {
  const amount = by === "count" ? "u32" : "f32";
  const share = by === "count" ? "min(p.count, end - begin)" : "p.mass * tally(t, 0u)";
  const needed =
    by === "count"
      ? "wanted - above"
      : "select(0u, max(1u, u32(clamp(ceil((wanted - above) / bitcast<f32>(bits)), 1.0, 16777216.0))), bits > 0u)";
  return kernel({
    name: `keepLargest by ${by} ${threads}`,
    params: {
      cols: "u32",
      run: "u32",
      count: "u32",
      mass: "f32",
      /** The highest bit of a place in a run. */
      farthest: "u32",
      outOffset: "u32",
      outStride: "u32",
      xOffset: "u32",
      xStride: "u32",
    },
    buffers: { outs: readWrite(), xs: read() },
    code: /* wgsl */ `
var<workgroup> amounts: array<${amount}, ${threads}>;
var<workgroup> equals: array<u32, ${threads}>;
var<private> begin: u32;
var<private> end: u32;
var<private> base: u32;
fn magnitude(i: u32) -> u32 { return bitcast<u32>(xs[base + i]) & 0x7fffffffu; }
/** How many have at least these bits, or what they add up to. */
fn tally(t: u32, bits: u32) -> ${amount} {
  var own = ${amount}(0);
  for (var i = begin + t; i < end; i += ${threads}u) {
    let m = magnitude(i);
    if (m >= bits) { own += ${by === "count" ? "1u" : "bitcast<f32>(m)"}; }
  }
  amounts[t] = own;
  workgroupBarrier();
  for (var half = ${threads / 2}u; half > 0u; half /= 2u) {
    if (t < half) { amounts[t] += amounts[t + half]; }
    workgroupBarrier();
  }
  let all = amounts[0];
  workgroupBarrier();
  return all;
}
/** How many before a place have exactly these bits. */
fn equalBefore(t: u32, bits: u32, place: u32) -> u32 {
  var own = 0u;
  for (var i = begin + t; i < min(end, begin + place); i += ${threads}u) {
    if (magnitude(i) == bits) { own += 1u; }
  }
  equals[t] = own;
  workgroupBarrier();
  for (var half = ${threads / 2}u; half > 0u; half /= 2u) {
    if (t < half) { equals[t] += equals[t + half]; }
    workgroupBarrier();
  }
  let all = equals[0];
  workgroupBarrier();
  return all;
}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  begin = workgroup.x * p.run;
  end = min(begin + p.run, p.cols);
  base = p.xOffset + workgroup.y * p.xStride;
  let wanted = ${share};
  var bits = 0u;
  for (var bit = 0x40000000u; bit > 0u; bit >>= 1u) {
    if (tally(t, bits | bit) >= wanted) { bits |= bit; }
  }
  let above = tally(t, bits + 1u);
  let ties = ${needed};
  // The place of the last of the equals that are kept.
  var last = 0u;
  for (var bit = p.farthest; bit > 0u; bit >>= 1u) {
    if (equalBefore(t, bits, last | bit) < ties) { last |= bit; }
  }
  for (var i = begin + t; i < end; i += ${threads}u) {
    let m = magnitude(i);
    let kept = m > bits || (m == bits && ties > 0u && i - begin <= last);
    outs[p.outOffset + workgroup.y * p.outStride + i] = select(0.0, xs[base + i], kept);
  }
}`,
  });
};

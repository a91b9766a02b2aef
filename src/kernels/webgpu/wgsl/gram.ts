import { kernel, read, readWrite } from "../kernel.js";

/** Rows and columns of the sum that one workgroup owns. */
export const gramTile = 64;

/** Rows of x in workgroup memory at a time. */
const batch = 16;

/**
 * sums += xᵀ·x on and above the diagonal. A workgroup owns 64 × 64 sums, each of its 256 threads 4 × 4 of them; those below
 * the diagonal have nothing to do.
 */
export const addGram = kernel({
  name: "addGram",
  params: { cols: "u32", rows: "u32", xOffset: "u32", xStride: "u32", outOffset: "u32", outStride: "u32" },
  buffers: { outs: readWrite(), xs: read() },
  code: /* wgsl */ `
const QUADS = ${gramTile / 4}u;
var<workgroup> left: array<vec4<f32>, ${(batch * gramTile) / 4}>;
var<workgroup> right: array<vec4<f32>, ${(batch * gramTile) / 4}>;

fn quad(row: u32, column: u32) -> vec4<f32> {
  // Columns come in fours.
  if (row >= p.rows || column >= p.cols) { return vec4<f32>(); }
  let at = p.xOffset + row * p.xStride + column;
  return vec4<f32>(xs[at], xs[at + 1u], xs[at + 2u], xs[at + 3u]);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (workgroup.y > workgroup.x) { return; }
  let firstRow = workgroup.y * ${gramTile}u;
  let firstColumn = workgroup.x * ${gramTile}u;
  let a = t / QUADS;
  let b = t % QUADS;
  var sum = array<vec4<f32>, 4>();
  for (var begin = 0u; begin < p.rows; begin += ${batch}u) {
    left[t] = quad(begin + a, firstRow + b * 4u);
    right[t] = quad(begin + a, firstColumn + b * 4u);
    workgroupBarrier();
    for (var r = 0u; r < ${batch}u; r += 1u) {
      let u = left[r * QUADS + a];
      let v = right[r * QUADS + b];
      for (var i = 0u; i < 4u; i += 1u) { sum[i] = fma(vec4<f32>(u[i]), v, sum[i]); }
    }
    workgroupBarrier();
  }
  for (var i = 0u; i < 4u; i += 1u) {
    let row = firstRow + a * 4u + i;
    for (var k = 0u; k < 4u; k += 1u) {
      let column = firstColumn + b * 4u + k;
      if (row < p.cols && column < p.cols) { outs[p.outOffset + row * p.outStride + column] += sum[i][k]; }
    }
  }
}`,
});

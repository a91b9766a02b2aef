import { type Kernel, kernel, read, readWrite } from "../../../kernels/internal.js";

/**
 * How the factors of C = A·B lie: "nt" takes B as [N, K] (x·Wᵀ), "nn" as [K, N] (dY·W), and "tn" takes A as [K, M] (dYᵀ·X).
 */
export type GemmLayout = "nt" | "nn" | "tn";

/** Which part of a square causal matrix there is: of C, of A, or of Aᵀ. Tiles of the rest are not computed or not read. */
export const causalParts = { none: 0, result: 1, left: 2, leftTransposed: 3 } as const;

export const tileRows = 64;
const depth = 16;
/** Rows and columns of C that a thread owns. */
const own = 8;

const shared = {
  params: {
    rows: "u32",
    columns: "u32",
    depth: "u32",
    // Everything below in vec4: distances between rows as stored, offsets, and distances between batches and heads.
    aStride: "u32",
    bStride: "u32",
    cStride: "u32",
    aOffset: "u32",
    bOffset: "u32",
    cOffset: "u32",
    aBatch: "u32",
    bBatch: "u32",
    cBatch: "u32",
    aHead: "u32",
    bHead: "u32",
    cHead: "u32",
    /** Heads of a batch; bGroup of them share one of B. */
    heads: "u32",
    bGroup: "u32",
    causal: "u32",
    accumulate: "u32",
    alpha: "f32",
    /** Of a product by runs. */
    runs: "u32",
  },
  buffers: { c: readWrite("vec4<f32>"), a: read("vec4<f32>"), b: read("vec4<f32>"), base: read("vec4<f32>") },
} as const;

export type GemmParams = Record<keyof typeof shared.params, number>;
export type GemmKernel = Kernel<keyof typeof shared.params, keyof typeof shared.buffers>;
export type RunsGemmKernel = Kernel<keyof typeof shared.params, keyof typeof shared.buffers | "runs">;

/** The run to which the tile belongs, whose matrix B is; tiles behind the last run are not computed. */
const runOfTile = /* wgsl */ `
  if (m0 >= runs[p.runs]) { return; }
  var run = 0u;
  var above = p.runs;
  while (above - run > 1u) {
    let middle = (run + above) / 2u;
    if (runs[middle] <= m0) { run = middle; } else { above = middle; }
  }`;

/**
 * C = alpha·A·B (+ base) in f32 for matrices of one size in one buffer each, one workgroup per tile of 64 × `tileColumns`. The
 * reduction walks through workgroup memory, 16 at a time; while those are multiplied, the next are read. All sizes, strides
 * and offsets are multiples of four, so a block of 4 × 4 is inside or outside as a whole.
 */
export const gemm = (layout: GemmLayout, tileColumns: 32 | 64): GemmKernel =>
  kernel({ name: `gemm ${layout} ${tileColumns}`, ...shared, code: gemmCode(layout, tileColumns, false) });

/**
 * As `gemm`, for rows that lie in runs, each with a matrix of its own: `runs` [p.runs + 1] says where they begin, at a tile each,
 * and behind that how many rows count. B is that of the row's run, `bBatch` apart ("nt", "nn"), or every run has a C, `cBatch` apart,
 * that sums over its rows ("tn"); rows that fill up a run are 0.
 */
export const gemmByRuns = (layout: GemmLayout, tileColumns: 32 | 64): RunsGemmKernel =>
  kernel({
    name: `gemm by runs ${layout} ${tileColumns}`,
    params: shared.params,
    buffers: { ...shared.buffers, runs: read("u32") },
    code: gemmCode(layout, tileColumns, true),
  });

function gemmCode(layout: GemmLayout, tileColumns: 32 | 64, byRuns: boolean): string {
  const sumsRun = byRuns && layout === "tn";
  const threads = (tileRows / own) * (tileColumns / own);
  const threadsAcross = tileColumns / own;
  // One more, so that neighbouring rows of a tile lie in other banks.
  const [aPitch, bPitch] = [tileRows / 4 + 1, tileColumns / 4 + 1];
  const times = (count: number, line: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => line(i)).join("\n");

  /** Blocks of 4 × 4 of one factor's tile: how this thread reads its own and puts them into workgroup memory as [k][4 rows]. */
  const factor = (name: "a" | "b", extent: number, pitch: number, reductionContiguous: boolean, size: string) => {
    const across = extent / 4;
    const count = (across * depth) / 4 / threads;
    const first = name === "a" ? "m0" : "n0";
    const block = (i: number) => `(t + ${i * threads}u)`;
    /** Block along the result's dimension, and along the reduction. */
    const place = (i: number) =>
      reductionContiguous
        ? { outer: `(${block(i)} / ${depth / 4}u)`, inner: `(${block(i)} % ${depth / 4}u)` }
        : { outer: `(${block(i)} % ${across}u)`, inner: `(${block(i)} / ${across}u)` };
    return {
      declare: times(count * 4, (i) => `var ${name}${i} = vec4<f32>();`),
      load: (k: string) =>
        times(count, (i) => {
          const { outer, inner } = place(i);
          const at = reductionContiguous
            ? `${name}Base + row * p.${name}Stride + k / 4u`
            : `${name}Base + k * p.${name}Stride + row / 4u`;
          return `{
            let row = ${first} + ${outer} * 4u;
            let k = ${k} + ${inner} * 4u;
            let inside = row < ${size} && k < kEnd;
            let at = select(0u, ${at}, inside);
            ${times(4, (j) => `${name}${4 * i + j} = select(vec4<f32>(), ${name}[select(0u, at + ${j}u * p.${name}Stride, inside)], inside);`)}
          }`;
        }),
      store: times(count, (i) => {
        const { outer, inner } = place(i);
        const value = (j: number) =>
          reductionContiguous
            ? `vec4<f32>(${[0, 1, 2, 3].map((r) => `${name}${4 * i + r}[${j}]`).join(", ")})`
            : `${name}${4 * i + j}`;
        return times(4, (j) => `${name}Tile[(${inner} * 4u + ${j}u) * ${pitch}u + ${outer}] = ${value(j)};`);
      }),
    };
  };
  const left = factor("a", tileRows, aPitch, layout !== "tn", "p.rows");
  const right = factor("b", tileColumns, bPitch, layout === "nt", "p.columns");
  return /* wgsl */ `
var<workgroup> aTile: array<vec4<f32>, ${depth * aPitch}>;
var<workgroup> bTile: array<vec4<f32>, ${depth * bPitch}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let n0 = workgroup.x * ${tileColumns}u;
  let m0 = workgroup.y * ${tileRows}u;
  if (p.causal == ${causalParts.result}u && n0 > m0 + ${tileRows - 1}u) { return; }
  let batch = workgroup.z / p.heads;
  let head = workgroup.z % p.heads;
  ${byRuns && !sumsRun ? runOfTile : "let run = batch;"}
  ${
    sumsRun
      ? `let kFirst = runs[run];
  let kEnd = kFirst + (runs[p.runs + 1u + run] + 3u) / 4u * 4u;`
      : `let kFirst = select(0u, m0, p.causal == ${causalParts.leftTransposed}u);
  let kEnd = select(p.depth, min(p.depth, m0 + ${tileRows}u), p.causal == ${causalParts.left}u);`
  }
  let aBase = p.aOffset + batch * p.aBatch + head * p.aHead;
  let bBase = p.bOffset + run * p.bBatch + head / p.bGroup * p.bHead;
  let cBase = p.cOffset + batch * p.cBatch + head * p.cHead;
  let tx = t % ${threadsAcross}u;
  let ty = t / ${threadsAcross}u;
  ${times(own * 2, (i) => `var sum${i} = vec4<f32>();`)}
  ${left.declare}
  ${right.declare}
  ${left.load("kFirst")}
  ${right.load("kFirst")}
  for (var k0 = kFirst; k0 < kEnd; k0 += ${depth}u) {
    ${left.store}
    ${right.store}
    workgroupBarrier();
    let next = k0 + ${depth}u;
    ${left.load("next")}
    ${right.load("next")}
    for (var k = 0u; k < ${depth}u; k += 1u) {
      let x0 = aTile[k * ${aPitch}u + ty * 2u];
      let x1 = aTile[k * ${aPitch}u + ty * 2u + 1u];
      let w0 = bTile[k * ${bPitch}u + tx];
      let w1 = bTile[k * ${bPitch}u + ${tileColumns / 8}u + tx];
      ${times(own, (i) => {
        const x = `vec4<f32>(x${Math.floor(i / 4)}[${i % 4}])`;
        return `sum${2 * i} = fma(${x}, w0, sum${2 * i}); sum${2 * i + 1} = fma(${x}, w1, sum${2 * i + 1});`;
      })}
    }
    workgroupBarrier();
  }
  ${times(own * 2, (i) => `put(m0 + ty * ${own}u + ${i >> 1}u, n0 + ${(i & 1) * (tileColumns / 2)}u + tx * 4u, cBase, sum${i});`)}
}

fn put(row: u32, column: u32, cBase: u32, sum: vec4<f32>) {
  if (row >= p.rows || column >= p.columns) { return; }
  let at = cBase + row * p.cStride + column / 4u;
  var total = p.alpha * sum;
  if (p.accumulate != 0u) { total += base[at]; }
  c[at] = total;
}`;
}

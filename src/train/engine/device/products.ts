import type { ComputeRecorder, DeviceMemory } from "../../../kernels/internal.js";
import { gridOf, sumParts } from "./elementKernels.js";
import { causalParts, type GemmLayout, gemm, gemmByRuns, tileRows } from "./gemm.js";

/** f32 of a partial product that are kept at once, at most. */
export const partsLength = 2 ** 23;

/** A factor or a result: rows of `stride` f32 from `offset` on, and the distances between batches and heads. */
export interface Factor {
  memory: DeviceMemory;
  stride: number;
  offset?: number;
  batch?: number;
  head?: number;
}

/** Rows in runs, one for each of `count` matrices; see `gemmByRuns`. */
export interface Runs {
  memory: DeviceMemory;
  count: number;
}

export interface Product {
  layout: GemmLayout;
  /** Of C, and the length of the sums. */
  rows: number;
  columns: number;
  depth: number;
  a: Factor;
  b: Factor;
  c: Factor;
  /** Default 1. */
  alpha?: number;
  /** Added to the product; lies like C. */
  base?: DeviceMemory;
  batches?: number;
  heads?: number;
  /** Heads that share one of B. */
  bGroup?: number;
  causal?: keyof typeof causalParts;
  /** Each run of rows has a matrix B of its own, or sums up to a C of its own. */
  runs?: Runs;
}

/** A product for a narrow C has tiles as narrow. */
const tileColumnsFor = (columns: number) => (columns <= 32 ? 32 : 64);

/** Records matrix products. */
export class Products {
  readonly #kernel = once(gemm);
  readonly #kernelByRuns = once(gemmByRuns);

  constructor(
    readonly recorder: ComputeRecorder,
    /** Room for products over parts of a sum. */
    readonly parts: DeviceMemory,
    /** Tiles that keep the device busy. */
    readonly enoughTiles: number,
  ) {}

  record(product: Product): void {
    const {
      layout,
      rows,
      columns,
      depth,
      a,
      b,
      c,
      alpha = 1,
      base,
      batches = 1,
      heads = 1,
      bGroup = 1,
      runs,
    } = product;
    const tileColumns = tileColumnsFor(columns);
    const vec4 = (value = 0) => value / 4;
    const params = {
      rows,
      columns,
      depth,
      aStride: vec4(a.stride),
      bStride: vec4(b.stride),
      cStride: vec4(c.stride),
      aOffset: vec4(a.offset),
      bOffset: vec4(b.offset),
      cOffset: vec4(c.offset),
      aBatch: vec4(a.batch),
      bBatch: vec4(b.batch),
      cBatch: vec4(c.batch),
      aHead: vec4(a.head),
      bHead: vec4(b.head),
      cHead: vec4(c.head),
      heads,
      bGroup,
      causal: causalParts[product.causal ?? "none"],
      accumulate: base === undefined ? 0 : 1,
      alpha,
      runs: runs?.count ?? 0,
    };
    const buffers = { c: c.memory, a: a.memory, b: b.memory, base: base ?? c.memory };
    const grid = [Math.ceil(columns / tileColumns), Math.ceil(rows / tileRows), batches * heads] as const;
    this.recorder.makeRoom(1, 0);
    if (runs === undefined) this.recorder.run(this.#kernel(layout, tileColumns), params, buffers, grid);
    else {
      const kernel = this.#kernelByRuns(layout, tileColumns);
      this.recorder.run(kernel, params, { ...buffers, runs: runs.memory }, grid);
    }
  }

  /**
   * A product into `sums` at `offset`, rows side by side: a small result of long sums, which are cut into parts so that the device
   * has enough to do, and added up after.
   */
  recordInParts(product: Omit<Product, "c">, sums: DeviceMemory, offset = 0): void {
    const { layout, rows, columns, depth, a, b } = product;
    const length = rows * columns;
    const tiles = Math.ceil(rows / tileRows) * Math.ceil(columns / tileColumnsFor(columns));
    let parts = 1;
    while (depth % (8 * parts) === 0 && 2 * parts * length <= partsLength && 2 * parts * tiles <= this.enoughTiles)
      parts *= 2;
    const share = depth / parts;
    const c = parts === 1 ? { memory: sums, offset } : { memory: this.parts, batch: length };
    this.record({
      ...product,
      depth: share,
      a: { ...a, batch: layout === "tn" ? share * a.stride : share },
      b: { ...b, batch: layout === "nt" ? share : share * b.stride },
      c: { ...c, stride: columns },
      batches: parts,
    });
    if (parts > 1) this.addUp(parts, length, sums, offset);
  }

  /** sums[offset + i] = Σ over parts. */
  addUp(parts: number, count: number, sums: DeviceMemory, offset: number): void {
    this.recorder.makeRoom(1, 0);
    this.recorder.run(sumParts, { count, parts, offset }, { sums, parts: this.parts }, gridOf(count));
  }
}

type Make<K> = (layout: GemmLayout, tileColumns: 32 | 64) => K;

function once<K>(make: Make<K>): Make<K> {
  const made = new Map<string, K>();
  return (layout, tileColumns) => {
    const key = `${layout} ${tileColumns}`;
    const found = made.get(key) ?? make(layout, tileColumns);
    made.set(key, found);
    return found;
  };
}

import type { GpuFormat } from "../formats.js";
import { inverseRms } from "./rmsNorm.js";

/** Where a workgroup of `matvec` finds what it works on and what it does besides, in WGSL. */
export interface Place {
  readonly declare: string;
  /** At the beginning of `main`. */
  readonly enter: string;
  /** First element of x and of out; first unit of the matrix; first ticket and slice in the exchange. */
  readonly x: string;
  readonly out: string;
  readonly units: string;
  readonly ticket: string;
  readonly slice: string;
  /** To the `total` of a row before and after it is put; once all rows of a tile are put. */
  readonly add: string;
  readonly after: string;
  readonly leave: string;
}

/** What is done with the vector of a product, one number per row. */
export const rowVector = { none: 0, bias: 1, nextNorm: 2 } as const;

/** One product, with a bias or with norms around it; see `matvec`. */
export const oneProduct = ({ tileRows }: GpuFormat, tuning: { threads: number; subgroups32: boolean }): Place => ({
  declare: /* wgsl */ `
/** Sum of squares of what this thread put. */
var<private> square: f32;
${inverseRms("p.cols", tuning.subgroups32)}
${sumSquares(Math.min(tuning.threads, tileRows), tuning.subgroups32)}`,
  enter: "if (p.squareCount != 0u) { inverse = inverseRms(t); }",
  x: "p.xOffset",
  out: "p.outOffset",
  units: "place0.y",
  ticket: "0u",
  slice: "0u",
  add: `if (p.vectorUse == ${rowVector.bias}u) { total += vector[column]; }`,
  after: /* wgsl */ `
  if (p.vectorUse == ${rowVector.nextNorm}u) {
    scaled[p.scaledOffset + column] = total * vector[column];
    square = fma(total, total, square);
  }`,
  leave: `if (p.vectorUse == ${rowVector.nextNorm}u) { sumSquares(workgroup.x, t); }`,
});

/** @param putters the first so many threads put rows, at most one each */
const sumSquares = (putters: number, subgroups32: boolean) => /* wgsl */ `
fn sumSquares(tile: u32, t: u32) {
  ${
    subgroups32
      ? `let share = subgroupAdd(square);
  workgroupBarrier();
  if (t % 32u == 0u) { pool[t / 32u].x = bitcast<u32>(share); }`
      : `workgroupBarrier();
  pool[t].x = bitcast<u32>(square);`
  }
  workgroupBarrier();
  if (t == 0u) {
    var sum = 0.0;
    for (var i = 0u; i < ${subgroups32 ? putters / 32 : putters}u; i += 1u) { sum += bitcast<f32>(pool[i].x); }
    squaresOut[p.firstSquare + tile] = sum;
  }
}`;

/** One product for every slot of a routing, of which `workgroup.z` is the number, with the matrix of its expert. */
export const slotProducts: Place = {
  declare: "var<private> slot: u32;",
  enter: "slot = workgroup.z;",
  x: "(p.xOffset + slot * p.xStride)",
  out: "(p.outOffset + slot * p.outStride)",
  units: "(place0.y + min(routing[slot], p.experts - 1u) * p.expertUnits)",
  ticket: "(slot * p.tickets)",
  slice: "(slot * p.slices)",
  add: "",
  after: "",
  leave: "",
};

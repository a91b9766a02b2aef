import type { ActivationFunction } from "../../core/index.js";
import { isSparse } from "../../pack/index.js";
import type { ElementFunction, GateOptions, SwapOptions } from "../backend.js";
import { pairPlaces } from "../handles.js";
import type { InputChoice } from "../inputChoice.js";
import { formatCode } from "./formatCode.js";
import * as layout from "./layout.js";
import type { ProgramActivation, ProgramMatrix, ProgramRopeTable, ProgramVector } from "./storage.js";

// Each records one operation of the contract in the memory where an operand lies.

const functionCode: Readonly<Record<ActivationFunction, number>> = {
  silu: layout.functionSilu,
  relu: layout.functionRelu,
  gelu: layout.functionGelu,
  geluTanh: layout.functionGeluTanh,
  relu2: layout.functionRelu2,
};

/** Ids are written into the program, which has an end. */
const embedRows = 1024;

export function embed(out: ProgramActivation, w: ProgramMatrix, ids: Uint32Array, threads: number): void {
  const { arena } = w;
  const at = out.writeIn(arena);
  for (let row = 0; row < ids.length; row += embedRows) {
    const operands = {
      out: at + row * out.stride * 4,
      outStride: out.stride,
      cols: out.cols,
      weights: w.offset,
      paddedRows: w.packedRows,
      format: formatCode(w.format),
      ids: ids.subarray(row, row + embedRows),
    };
    if (!isSparse(w.format)) arena.record("embed", operands);
    else {
      const scratchBytes = layout.unpackedBytes;
      const scratch = arena.scratch(threads * scratchBytes);
      arena.record("unpackRows", { ...operands, scratch, scratchBytes });
    }
  }
}

export function rmsNorm(out: ProgramActivation, x: ProgramActivation, weight: ProgramVector, epsilon: number): void {
  const arena = x.block.home;
  arena.record("rmsNorm", {
    out: out.writeIn(arena),
    outStride: out.stride,
    x: x.readIn(arena),
    xStride: x.stride,
    rows: x.rows,
    cols: x.cols,
    weight: weight.constant.readIn(arena),
    weightLength: weight.length,
    epsilon,
  });
}

export function rope(x: ProgramActivation, table: ProgramRopeTable, start: number): void {
  const arena = x.block.home;
  arena.record("rope", {
    x: x.readIn(arena),
    stride: x.stride,
    rows: x.rows,
    heads: x.cols / table.headDim,
    headDim: table.headDim,
    ...pairPlaces(table),
    cos: table.cos.readIn(arena),
    sin: table.sin.readIn(arena),
    start,
  });
}

export function gatedActivation(
  out: ProgramActivation,
  gate: ProgramActivation,
  up: ProgramActivation,
  f: ActivationFunction,
  { gateThreshold: threshold = 0, clamped }: GateOptions,
): void {
  const arena = gate.block.home;
  arena.record("gatedActivation", {
    // Read before `out` is: it may be one of them.
    gate: gate.readIn(arena),
    gateStride: gate.stride,
    up: up.readIn(arena),
    upStride: up.stride,
    out: out.writeIn(arena),
    outStride: out.stride,
    rows: out.rows,
    cols: out.cols,
    activation: functionCode[f],
    threshold,
    limit: clamped?.limit ?? 0,
    sharpness: clamped?.sharpness ?? 0,
  });
}

const numberedCode = {
  scale: layout.functionScale,
  softcap: layout.functionSoftcap,
  clamp: layout.functionClamp,
} as const;

export function map(out: ProgramActivation, x: ProgramActivation, f: ElementFunction): void {
  const arena = x.block.home;
  const named = typeof f === "string";
  arena.record("map", {
    // Read before `out` is: it may be the same.
    x: x.readIn(arena),
    xStride: x.stride,
    out: out.writeIn(arena),
    outStride: out.stride,
    rows: out.rows,
    cols: out.cols,
    function: named ? functionCode[f] : numberedCode[f.f],
    by: named ? 0 : f.by,
  });
}

export function keepLargest(out: ProgramActivation, x: ProgramActivation, choice: InputChoice): void {
  const arena = x.block.home;
  const { count, of = x.cols } = "mass" in choice ? { count: 0 } : choice;
  arena.record("keepLargest", {
    x: x.readIn(arena),
    xStride: x.stride,
    out: out.writeIn(arena),
    outStride: out.stride,
    rows: out.rows,
    cols: out.cols,
    run: Math.min(of, x.cols),
    count: Math.min(count, x.cols),
    mass: "mass" in choice ? choice.mass : -1,
  });
}

export function layerNorm(
  out: ProgramActivation,
  x: ProgramActivation,
  weight: ProgramVector,
  bias: ProgramVector | undefined,
  epsilon: number,
): void {
  const arena = x.block.home;
  arena.record("layerNorm", {
    x: x.readIn(arena),
    xStride: x.stride,
    out: out.writeIn(arena),
    outStride: out.stride,
    rows: x.rows,
    cols: x.cols,
    weight: weight.constant.readIn(arena),
    bias: bias?.constant.readIn(arena) ?? 0,
    weightLength: weight.length,
    epsilon,
  });
}

export function add(out: ProgramActivation, x: ProgramActivation): void {
  const arena = out.block.home;
  arena.record("add", {
    out: out.readIn(arena),
    outStride: out.stride,
    x: x.readIn(arena),
    xStride: x.stride,
    rows: out.rows,
    cols: out.cols,
  });
}

export function swapAxes(out: ProgramActivation, x: ProgramActivation, { turned, run }: SwapOptions): void {
  const arena = x.block.home;
  arena.record("swapAxes", {
    x: x.readIn(arena),
    xStride: x.stride,
    out: out.writeIn(arena),
    outStride: out.stride,
    rows: x.rows,
    lead: x.cols / (turned * run),
    turned,
    run,
  });
}

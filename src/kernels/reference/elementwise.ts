import { type ActivationFunction, activationFunctions } from "../../core/index.js";
import type { ElementFunction, GateOptions, SwapOptions } from "../backend.js";
import { pairPlaces } from "../handles.js";
import type { ReferenceActivation, ReferenceMatrix, ReferenceRopeTable } from "./storage.js";

export function embed(out: ReferenceActivation, table: ReferenceMatrix, ids: Uint32Array): void {
  const { values } = table.parts[0];
  for (let r = 0; r < ids.length; r++) {
    out.row(r).set(values.subarray(ids[r] * table.cols, (ids[r] + 1) * table.cols));
  }
}

export function rmsNorm(out: ReferenceActivation, x: ReferenceActivation, weight: Float32Array, epsilon: number): void {
  const width = weight.length;
  for (let r = 0; r < x.rows; r++) {
    for (let begin = 0; begin < x.cols; begin += width) {
      const source = x.row(r).subarray(begin, begin + width);
      const target = out.row(r).subarray(begin, begin + width);
      let squares = 0;
      for (const v of source) squares += v * v;
      // As where squares are added up in f32: a row beyond its range shows as NaN.
      const inverse =
        Math.fround(squares) < Number.POSITIVE_INFINITY ? 1 / Math.sqrt(squares / width + epsilon) : Number.NaN;
      for (let i = 0; i < width; i++) target[i] = source[i] * inverse * weight[i];
    }
  }
}

export function layerNorm(
  out: ReferenceActivation,
  x: ReferenceActivation,
  weight: Float32Array,
  bias: Float32Array | undefined,
  epsilon: number,
): void {
  const width = weight.length;
  for (let r = 0; r < x.rows; r++) {
    for (let begin = 0; begin < x.cols; begin += width) {
      const source = x.row(r).subarray(begin, begin + width);
      const target = out.row(r).subarray(begin, begin + width);
      let sum = 0;
      for (const v of source) sum += v;
      const mean = sum / width;
      let squares = 0;
      for (const v of source) squares += (v - mean) ** 2;
      const inverse = 1 / Math.sqrt(squares / width + epsilon);
      for (let i = 0; i < width; i++) target[i] = (source[i] - mean) * inverse * weight[i] + (bias?.[i] ?? 0);
    }
  }
}

export function rope(x: ReferenceActivation, table: ReferenceRopeTable, start: number): void {
  for (let r = 0; r < x.rows; r++) {
    for (let begin = 0; begin < x.cols; begin += table.headDim) {
      turnHead(x.row(r).subarray(begin, begin + table.headDim), table, start + r);
    }
  }
}

/** Turns one head [headDim] by so many positions, forward or back. */
export function turnHead(head: Float32Array, table: ReferenceRopeTable, by: number): void {
  const { first, half, step, apart } = pairPlaces(table);
  for (let i = 0; i < half; i++) {
    const angle = Math.abs(by) * half + i;
    const [cos, sin] = [table.cos[angle], by < 0 ? -table.sin[angle] : table.sin[angle]];
    const at = first + i * step;
    const [a, b] = [head[at], head[at + apart]];
    head[at] = a * cos - b * sin;
    head[at + apart] = b * cos + a * sin;
  }
}

export function gatedActivation(
  out: ReferenceActivation,
  gate: ReferenceActivation,
  up: ReferenceActivation,
  f: ActivationFunction,
  { gateThreshold = 0, clamped }: GateOptions,
): void {
  const apply = clamped ? (x: number) => x / (1 + Math.exp(-clamped.sharpness * x)) : activationFunctions[f];
  const threshold = Math.fround(gateThreshold);
  for (let r = 0; r < gate.rows; r++) {
    const [target, gates, ups] = [out.row(r), gate.row(r), up.row(r)];
    for (let i = 0; i < gate.cols; i++) {
      const [gate, factor] = clamped
        ? [Math.min(gates[i], clamped.limit), 1 + Math.max(-clamped.limit, Math.min(ups[i], clamped.limit))]
        : [gates[i], ups[i]];
      const activated = Math.fround(apply(gate));
      target[i] = Math.abs(activated) < threshold ? 0 : activated * factor;
    }
  }
}

/** An element function in f64. */
export function elementFunction(f: ElementFunction): (x: number) => number {
  if (typeof f === "string") return activationFunctions[f];
  const { by } = f;
  if (f.f === "scale") return (x) => x * by;
  if (f.f === "softcap") return (x) => by * Math.tanh(x / by);
  return (x) => Math.min(Math.max(x, -by), by);
}

export function map(out: ReferenceActivation, x: ReferenceActivation, f: ElementFunction): void {
  const apply = elementFunction(f);
  for (let r = 0; r < x.rows; r++) {
    const [target, source] = [out.row(r), x.row(r)];
    for (let i = 0; i < x.cols; i++) target[i] = apply(source[i]);
  }
}

export function add(out: ReferenceActivation, x: ReferenceActivation): void {
  for (let r = 0; r < x.rows; r++) {
    const [target, source] = [out.row(r), x.row(r)];
    for (let i = 0; i < x.cols; i++) target[i] += source[i];
  }
}

export function swapAxes(out: ReferenceActivation, x: ReferenceActivation, { turned, run }: SwapOptions): void {
  const lead = x.cols / (turned * run);
  for (let r = 0; r < x.rows; r++) {
    const [source, target] = [x.row(r), out.row(r)];
    for (let a = 0; a < lead; a++) {
      for (let b = 0; b < turned; b++) {
        const at = (a * turned + b) * run;
        target.set(source.subarray(at, at + run), (b * lead + a) * run);
      }
    }
  }
}

import type { ActivationFunction } from "../../core/index.js";
import type { ElementFunction, GateOptions, SwapOptions } from "../backend.js";
import type { Context } from "./context.js";
import { made } from "./made.js";
import type { GpuActivation } from "./storage.js";
import * as kernels from "./wgsl/elementwise.js";

/** Kernels by the function that they apply. */
const gates = new Map<ActivationFunction | "clamped", ReturnType<typeof kernels.gatedActivation>>();
const maps = new Map<string, ReturnType<typeof kernels.map>>();

const gridOf = ({ rows, cols }: GpuActivation) => [kernels.elementGroups(cols), rows] as const;

/** Enqueues `Backend.gatedActivation`. */
export function gatedActivation(
  { recorder }: Context,
  out: GpuActivation,
  gate: GpuActivation,
  up: GpuActivation,
  f: ActivationFunction,
  { gateThreshold = 0, clamped }: GateOptions,
): void {
  const variant = clamped === undefined ? f : "clamped";
  recorder.run(
    made(gates, variant, () => kernels.gatedActivation(variant)),
    {
      cols: out.cols,
      threshold: gateThreshold,
      limit: clamped?.limit ?? 0,
      sharpness: clamped?.sharpness ?? 0,
      ...at("out", out),
      ...at("gate", gate),
      ...at("up", up),
    },
    { outs: out.memory, gates: gate.memory, ups: up.memory },
    gridOf(out),
  );
}

/** Enqueues `Backend.swapAxes`. */
export function swapAxes(
  { recorder }: Context,
  out: GpuActivation,
  x: GpuActivation,
  { turned, run }: SwapOptions,
): void {
  recorder.run(
    kernels.swapAxes,
    { cols: out.cols, lead: x.cols / (turned * run), turned, run, ...at("out", out), ...at("x", x) },
    { outs: out.memory, xs: x.memory },
    gridOf(out),
  );
}

/** Enqueues `Backend.map`. */
export function map({ recorder }: Context, out: GpuActivation, x: GpuActivation, f: ElementFunction): void {
  const [name, by] = typeof f === "string" ? [f, 0] : [f.f, f.by];
  recorder.run(
    made(maps, name, () => kernels.map(name)),
    { cols: out.cols, by, ...at("out", out), ...at("x", x) },
    { outs: out.memory, xs: x.memory },
    gridOf(out),
  );
}

/** Enqueues `Backend.add`. */
export function add({ recorder }: Context, out: GpuActivation, x: GpuActivation): void {
  recorder.run(
    kernels.add,
    { cols: out.cols, ...at("out", out), ...at("x", x) },
    { outs: out.memory, xs: x.memory },
    gridOf(out),
  );
}

/** The parameters that say where an operand lies. */
export function at<N extends string>(
  name: N,
  { offset, stride }: GpuActivation,
): Record<`${N}Offset` | `${N}Stride`, number> {
  return { [`${name}Offset`]: offset, [`${name}Stride`]: stride } as Record<`${N}Offset` | `${N}Stride`, number>;
}

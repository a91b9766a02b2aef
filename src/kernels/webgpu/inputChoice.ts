import type { InputChoice } from "../inputChoice.js";
import type { Context } from "./context.js";
import { at } from "./elementwise.js";
import type { GpuActivation } from "./storage.js";
import { keepLargest as kernelOf } from "./wgsl/inputChoice.js";

const kernels = { count: kernelOf("count"), mass: kernelOf("mass") } as const;

/** Enqueues `Backend.keepLargest`. */
export function keepLargest({ recorder }: Context, out: GpuActivation, x: GpuActivation, choice: InputChoice): void {
  const { count, of = x.cols } = "mass" in choice ? { count: 0 } : choice;
  const run = Math.min(of, x.cols);
  recorder.run(
    "mass" in choice ? kernels.mass : kernels.count,
    {
      cols: x.cols,
      run,
      count: Math.min(count, x.cols),
      mass: "mass" in choice ? choice.mass : 0,
      ...at("out", out),
      ...at("x", x),
    },
    { outs: out.memory, xs: x.memory },
    [Math.ceil(x.cols / run), x.rows],
  );
}

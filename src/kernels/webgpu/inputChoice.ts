import type { InputChoice } from "../inputChoice.js";
import type { Context } from "./context.js";
import { at } from "./elementwise.js";
import type { GpuActivation } from "./storage.js";
import { keepLargest as kernelOf } from "./wgsl/inputChoice.js";

/** Threads of a workgroup: short runs need few. */
const [few, many] = [32, 256];
const kernels = { short: kernelOf("count", few), long: kernelOf("count", many), mass: kernelOf("mass", many) } as const;

/** Enqueues `Backend.keepLargest`. */
export function keepLargest({ recorder }: Context, out: GpuActivation, x: GpuActivation, choice: InputChoice): void {
  const { count, of = x.cols } = "mass" in choice ? { count: 0 } : choice;
  const run = Math.min(of, x.cols);
  recorder.run(
    "mass" in choice ? kernels.mass : run > 2 * few ? kernels.long : kernels.short,
    {
      cols: x.cols,
      run,
      count: Math.min(count, x.cols),
      mass: "mass" in choice ? choice.mass : 0,
      farthest: 2 ** Math.floor(Math.log2(run)),
      ...at("out", out),
      ...at("x", x),
    },
    { outs: out.memory, xs: x.memory },
    [Math.ceil(x.cols / run), x.rows],
  );
}

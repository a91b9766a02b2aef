import type * as z from "zod/mini";
import type { TrainMethod } from "./contract.js";
import { dynamicOptions, startDynamic } from "./set.js";

/** Drops the weakest connections, grows as many where the gradient is largest. */
export const method: TrainMethod<z.output<typeof dynamicOptions>> = {
  id: "rigl",
  title: "RigL",
  paper: "Evci et al. 2020, arXiv:1911.11134",
  options: dynamicOptions,
  start: (context, options) => startDynamic(context, options, "gradient"),
};

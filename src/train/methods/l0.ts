import { gateOptions, startGates } from "../gates/options.js";
import type { TrainMethod } from "./contract.js";

/** L0 regularisation of whole units: each has a gate of its own, and what the open ones are expected to cost is part of the loss. */
export const method: TrainMethod<ReturnType<typeof gateOptions.parse>> = {
  id: "l0",
  title: "L0 with hard concrete gates",
  paper: "Louizos, Welling, Kingma 2018, arXiv:1712.01312",
  options: gateOptions,
  start: (context, options) => startGates(context, options, false),
};

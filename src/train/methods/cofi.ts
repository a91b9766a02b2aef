import { gateOptions, startGates } from "../gates/options.js";
import type { TrainMethod } from "./contract.js";

/**
 * Coarse and fine masks: a gate on every head and neuron, and one on the attention and on the MLP of every block, so that whole
 * layers go where that is cheaper. The published method also gates the channels of the residual stream, which norms see, and
 * distils layer by layer; here the teacher's predictions are the objective's matter (`models/distillation.ts`).
 */
export const method: TrainMethod<ReturnType<typeof gateOptions.parse>> = {
  id: "cofi",
  title: "CoFi's coarse and fine masks",
  paper: "Xia, Zhong, Chen 2022, arXiv:2204.00408",
  options: gateOptions,
  start: (context, options) => startGates(context, options, true),
};

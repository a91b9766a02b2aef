import * as z from "zod/mini";
import { adamW } from "../optimizers/adamW.js";
import { chain } from "../optimizers/link.js";
import { keepMasks } from "../optimizers/links.js";
import { noPull } from "../resident.js";
import { applyMasks, densityOf, fullMasks, markNonZeros } from "../selection/masks.js";
import { magnitudeMasks, patternOption } from "../selection/patterns.js";
import { stateOf } from "../state.js";
import type { TrainMethod } from "./contract.js";

const options = z.strictObject({
  mask: z
    ._default(z.enum(["zeros", "magnitude"]), "zeros")
    .check(
      z.describe(
        "zeros: the zeros that the weights have, as a pruned model does; magnitude: the pattern, by magnitude",
      ),
    ),
  pattern: patternOption,
});

/** Prune once, then train what is left: the mask stays, through momentum and weight decay. */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "fixed-mask",
  title: "Fixed mask",
  paper: "Han, Pool, Tran, Dally 2015, arXiv:1506.02626",
  options,
  start({ parameters, weights, optimizer }, { mask: from, pattern }) {
    const masks = fullMasks(parameters, weights);
    if (from === "magnitude") magnitudeMasks(parameters, pattern)(weights, masks);
    else markNonZeros(weights, masks);
    applyMasks(weights, masks);
    return {
      link: chain(keepMasks(masks), adamW(optimizer), keepMasks(masks)),
      state: { masks: stateOf(masks) },
      masks,
      device: {
        interval: 0,
        keep: 4,
        forward: "weights",
        frozen: true,
        decays: true,
        pull: () => noPull,
        squares: "gradients",
        masks,
      },
      metrics: () => ({ density: densityOf(masks) }),
    };
  },
};

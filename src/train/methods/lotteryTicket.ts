import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import { adamW } from "../optimizers/adamW.js";
import { chain, type Link } from "../optimizers/link.js";
import { keepMasks } from "../optimizers/links.js";
import { applyMasks, densityOf, fullMasks } from "../selection/masks.js";
import { structureOption } from "../selection/patterns.js";
import { isStateArray, type State, stateOf } from "../state.js";
import { cloneValues } from "../values.js";
import type { TrainMethod } from "./contract.js";
import { pruneSurvivors } from "./lottery.js";

const options = z.strictObject({
  structure: structureOption,
  rounds: z
    ._default(z.int().check(z.gte(1), z.lte(100)), 5)
    .check(z.describe("prunings; the steps are shared by one training more")),
  share: z
    ._default(z.number().check(z.gt(0), z.lt(1)), 0.2)
    .check(z.describe("share of the survivors that a pruning drops")),
  rewind: z
    ._default(z.number().check(z.gte(0), z.lt(1)), 0)
    .check(z.describe("share of the first training to whose weights survivors go back")),
});

/**
 * Iterative magnitude pruning with rewinding: train, drop the smallest survivors, put the others back to where they were early
 * in the first training, train again, all in one run. Every training has fresh moments and the whole schedule of rates.
 */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "lottery",
  title: "Lottery ticket",
  paper: "Frankle, Carbin 2019, arXiv:1803.03635; Frankle et al. 2020, arXiv:1903.01611",
  options,
  start({ parameters, weights, optimizer, steps }, { structure, rounds, share, rewind }) {
    if (structure.type === "nm") throw new UsageError("the density of keep:group is fixed; lottery tickets change it");
    const length = Math.floor(steps / (rounds + 1));
    if (length === 0) throw new UsageError(`${steps} steps are too few for ${rounds + 1} trainings`);
    const roundOf = (step: number) => Math.min(rounds, Math.floor(step / length));
    const stepInRound = (step: number) => step - length * roundOf(step);
    const rewindStep = Math.round(rewind * length);

    const masks = fullMasks(parameters, weights);
    const early = cloneValues(weights);
    const rate = (step: number) => optimizer.rate(Math.min(steps - 1, Math.floor((step * steps) / length)));
    const base = chain(keepMasks(masks), adamW({ ...optimizer, rate }), keepMasks(masks));
    const link: Link = {
      init: base.init,
      update(updates, state, current, step) {
        if (stepInRound(step) === 0) forget(state);
        base.update!(updates, state, current, stepInRound(step));
      },
      settle: (current, state, step) => base.settle!(current, state, stepInRound(step)),
    };
    let last = 0;
    return {
      link,
      state: { masks: stateOf(masks), early: stateOf(early) },
      masks,
      refresh(current, step) {
        last = step;
        if (step === rewindStep) for (const [name, values] of early) values.set(current.get(name)!);
      },
      after(current, step) {
        if (roundOf(step + 1) === roundOf(step)) return;
        pruneSurvivors(masks, current, parameters, share, structure);
        for (const [name, values] of early) current.get(name)!.set(values);
        applyMasks(current, masks);
      },
      metrics: () => ({ density: densityOf(masks), round: roundOf(last), rate: rate(stepInRound(last)) }),
    };
  },
};

/** Puts every moment back to 0. */
function forget(state: State): void {
  for (const value of Object.values(state)) {
    if (isStateArray(value)) value.fill(0);
    else if (typeof value === "object") forget(value);
  }
}

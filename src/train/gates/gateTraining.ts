import type { Random } from "../../core/index.js";
import type { MethodContext, MethodRun } from "../methods/contract.js";
import { adam } from "../optimizers/adam.js";
import { adamW } from "../optimizers/adamW.js";
import { applyStep, chain } from "../optimizers/link.js";
import { descend } from "../optimizers/links.js";
import { constant } from "../optimizers/schedule.js";
import { randomFor } from "../seeds.js";
import { scaleUnits } from "../selection/groups.js";
import { type State, stateOf } from "../state.js";
import type { FloatArray } from "../values.js";
import { costOfAll, type GatedGroup, gateGradients, keepWithin } from "./gatedUnits.js";
import { logitFor, meanGate, openProbability, sampleGate } from "./hardConcrete.js";

/** How gates are trained. */
export interface GateOptions {
  /** A gate on each unit; and with `coarse` one more on all units of a group together, which both must be open. */
  coarse: boolean;
  /** Share of the multiply-adds of all units that is to go, held by two multipliers … */
  sparsity?: number;
  /** … of which λ₂ is this at first: at 0, gates stand still until both have risen, and then fall too far … */
  stiffness: number;
  /** … or the price of all of them, in the unit of the loss. */
  lambda: number;
  /** Learning rate of logits and multipliers. */
  rate: number;
  /** Probability that a gate is open at first. */
  open: number;
  /** Shares of the steps: until when the target has risen to `sparsity`, and from when on gates stay as they are. */
  until: number;
  fixedFrom: number;
}

/** Gates of one step: of every group, f64 [count] and, where there are coarse ones, one number; with derivatives by their logits. */
interface Drawn {
  fine: { gates: Float64Array; slopes: Float64Array }[];
  coarse: { gates: Float64Array; slopes: Float64Array };
}

/**
 * Weights and the gates of units are trained together: min over W and a of E[L(W, z)] + what the expected cost of the open gates
 * is charged with, z hard concrete with logits a. A gate multiplies the columns behind its unit. In the last steps the units that
 * stay have the mean of their gates, the others 0, and weights alone are trained; in the end the gates are in the weights.
 *
 * With a target the charge is λ₁·(ŝ − t) + λ₂·(ŝ − t)², ŝ the expected share of the multiply-adds that is gone; the loss falls and
 * the multipliers rise along it (Wang, Wohlwend, Lei 2020, arXiv:1910.04732).
 */
export function gateTraining(context: MethodContext, groups: readonly GatedGroup[], options: GateOptions): MethodRun {
  const { weights, optimizer, steps, seed } = context;
  const { coarse, sparsity, lambda, until } = options;
  const whole = costOfAll(groups);
  const first = logitFor(options.open);
  const trained = new Map<string, FloatArray>([
    ...groups.map(({ name, kind, count }) => [`${kind}.${name}`, new Float64Array(count).fill(first)] as const),
    ...(coarse ? ([["groups", new Float64Array(groups.length).fill(first)]] as const) : []),
    ...(sparsity === undefined ? [] : ([["multipliers", Float64Array.of(0, options.stiffness)]] as const)),
  ]);
  const logits = groups.map(({ name, kind }) => trained.get(`${kind}.${name}`)!);
  const ofGroups = trained.get("groups");
  const multipliers = trained.get("multipliers");
  const gateLink = chain(adam(), descend(constant(options.rate)));
  const gateState = gateLink.init(trained);
  const fixedFrom = Math.floor(options.fixedFrom * steps);
  const state: State = { gates: stateOf(trained), optimizer: gateState };

  const seen = new Map<string, FloatArray>(weights);
  for (const { behind } of groups) for (const { name } of behind.members) seen.set(name, weights.get(name)!.slice());
  let gates: Float64Array[] | undefined;
  let drawn: Drawn | undefined;

  const probabilities = () => ({
    fine: logits.map((own) => Float64Array.from(own, (a) => openProbability(a).probability)),
    coarse: groups.map((_, g) => (ofGroups === undefined ? 1 : openProbability(ofGroups[g]).probability)),
  });
  /** Expected share of the multiply-adds that is gone. */
  const expectedSparsity = () => {
    const { fine, coarse } = probabilities();
    const open = groups.reduce((sum, { cost }, g) => sum + cost * coarse[g] * fine[g].reduce((a, b) => a + b, 0), 0);
    return 1 - open / whole;
  };
  /** What is drawn no more: the units that stay at the means of their gates. */
  const settled = (): Float64Array[] => {
    const { fine, coarse } = probabilities();
    const importance = fine.map((own, g) => own.map((p) => p * coarse[g]));
    const kept =
      sparsity === undefined
        ? importance.map((own) => Uint8Array.from(own, (p) => (p >= 0.5 ? 1 : 0)))
        : keepWithin(groups, importance, (1 - sparsity) * whole);
    return logits.map((own, g) => {
      const ofGroup = ofGroups === undefined ? 1 : meanGate(ofGroups[g]);
      return Float64Array.from(own, (a, unit) => (kept[g][unit] === 1 ? meanGate(a) * ofGroup : 0));
    });
  };
  const draw = (random: Random): Drawn => {
    const of = (own: ArrayLike<number>) => {
      const found = Array.from(own, (a) => sampleGate(a, Math.max(random.uniform(), Number.EPSILON)));
      return {
        gates: Float64Array.from(found, ({ gate }) => gate),
        slopes: Float64Array.from(found, ({ slope }) => slope),
      };
    };
    return { fine: logits.map(of), coarse: of(ofGroups ?? []) };
  };

  /** d(charge)/d(ŝ), and how far ŝ is from the target of a step. */
  const charge = (step: number) => {
    if (multipliers === undefined || sparsity === undefined) return { slope: -lambda, distance: 0 };
    const target = sparsity * Math.min(1, until === 0 ? 1 : (step + 1) / (until * steps));
    const distance = expectedSparsity() - target;
    return { slope: multipliers[0] + 2 * multipliers[1] * distance, distance };
  };

  return {
    link: adamW(optimizer),
    state,
    refresh(_weights, step) {
      drawn = step < fixedFrom ? draw(randomFor(seed, "gates", step)) : undefined;
      gates = drawn
        ? drawn.fine.map(({ gates }, g) => gates.map((z) => z * (coarse ? drawn!.coarse.gates[g] : 1)))
        : settled();
    },
    effective(current) {
      gates ??= settled();
      for (const [g, { behind }] of groups.entries()) scaleUnits(behind, gates[g], current, seen);
      return seen;
    },
    gradient(gradients, current, step) {
      const byGate = groups.map((group) => gateGradients(group, gradients, current));
      for (const [g, { behind }] of groups.entries()) scaleUnits(behind, gates![g], gradients, gradients);
      if (drawn === undefined) return;
      const { slope, distance } = charge(step);
      const open = probabilities();
      const updates = new Map<string, FloatArray>(
        Array.from(trained, ([name, { length }]) => [name, new Float64Array(length)]),
      );
      for (const [g, { name, kind, cost }] of groups.entries()) {
        const own = updates.get(`${kind}.${name}`)!;
        const { gates: z, slopes } = drawn.fine[g];
        const ofGroup = coarse ? drawn.coarse.gates[g] : 1;
        // ŝ falls by what the cost of an open gate is of all.
        const price = (-slope * cost) / whole;
        for (let unit = 0; unit < own.length; unit++) {
          own[unit] =
            byGate[g][unit] * ofGroup * slopes[unit] + price * open.coarse[g] * openProbability(logits[g][unit]).slope;
        }
        if (ofGroups === undefined) continue;
        const throughGroup = z.reduce((sum, gate, unit) => sum + gate * byGate[g][unit], 0);
        updates.get("groups")![g] =
          throughGroup * drawn.coarse.slopes[g] +
          price * open.fine[g].reduce((a, b) => a + b, 0) * openProbability(ofGroups[g]).slope;
      }
      // Uphill: what the charge is multiplied with grows where it is too small.
      if (multipliers !== undefined) updates.get("multipliers")!.set([-distance, -distance * distance]);
      applyStep(gateLink, trained, updates, gateState, step);
    },
    after() {
      gates = undefined;
      drawn = undefined;
    },
    finish(current) {
      const last = settled();
      for (const [g, { all, behind }] of groups.entries()) {
        const kept = last[g].map((gate) => (gate > 0 ? 1 : 0));
        scaleUnits(behind, last[g], current, current);
        scaleUnits(all, kept, current, current);
      }
    },
    metrics: () => ({ expectedSparsity: expectedSparsity() }),
  };
}

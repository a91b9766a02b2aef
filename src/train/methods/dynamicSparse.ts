import type { Random } from "../../core/index.js";
import { adamW } from "../optimizers/adamW.js";
import { chain, type Link } from "../optimizers/link.js";
import { keepMasks } from "../optimizers/links.js";
import { permutation, randomFor } from "../seeds.js";
import { applyMasks, densityOf, flips, fullMasks, kept } from "../selection/masks.js";
import { topS } from "../selection/topS.js";
import { isStateArray, type State, stateOf } from "../state.js";
import { type FloatArray, isSparsifiable } from "../values.js";
import type { MethodContext, MethodRun } from "./contract.js";
import { erkCounts } from "./erk.js";

/** Which absent connections to grow: "gradient" the largest |dL/dW| (RigL), "random" any (SET). */
export type Growth = "gradient" | "random";

/** What one update of the connections of a matrix does. */
export interface Rewiring {
  /** Connections to drop of those there are: the smallest |w|. */
  drop: number;
  /** Connections to grow of all that were not kept; a dropped one may come back and then keeps its value. */
  grow: number;
}

export interface DynamicSparseOptions {
  density: number;
  /** "erk" or the same density in every matrix. */
  distribution: "erk" | "uniform";
  growth: Growth;
  /** What to do before this step; undefined for an ordinary optimiser step. @param ones connections the matrix has */
  rewire(step: number, ones: number, size: number): Rewiring | undefined;
}

/**
 * Sparse from the first step to the last, with connections that move: now and then a step drops the weakest and grows new
 * ones at 0 with fresh moments, in place of the optimiser's step. The engine's gradient reaches absent weights too.
 */
export function dynamicSparse(context: MethodContext, options: DynamicSparseOptions): MethodRun {
  const { parameters, weights, optimizer, seed } = context;
  const matrices = parameters.filter(isSparsifiable);
  const masks = fullMasks(parameters, weights);
  const counts =
    options.distribution === "erk"
      ? erkCounts(matrices, options.density)
      : new Map(Array.from(masks, ([name, mask]) => [name, Math.round(options.density * mask.length)]));
  for (const [name, mask] of masks) {
    mask.fill(0);
    for (const i of permutation(randomFor(seed, `mask ${name}`), mask.length).subarray(0, counts.get(name)!))
      mask[i] = 1;
  }
  applyMasks(weights, masks);
  const state = { masks: stateOf(masks), flipRate: 0 };
  const base = chain(keepMasks(masks), adamW(optimizer), keepMasks(masks));

  const link: Link = {
    init: base.init,
    update(updates, linkState, current, step) {
      let flipped = 0;
      let rewired = false;
      for (const [name, mask] of masks) {
        const plan = options.rewire(step, kept(mask), mask.length);
        if (plan === undefined) continue;
        rewired = true;
        const old = mask.slice();
        const grown = rewire(
          mask,
          current.get(name)!,
          updates.get(name)!,
          plan,
          options.growth,
          randomFor(seed, name, step),
        );
        forgetMoments(linkState, name, grown);
        flipped += flips(old, mask);
      }
      if (!rewired) return base.update!(updates, linkState, current, step);
      state.flipRate = flipped / Array.from(masks.values()).reduce((sum, mask) => sum + mask.length, 0);
      for (const values of updates.values()) values.fill(0);
    },
    settle: (current, linkState, step) => base.settle!(current, linkState, step),
  };
  return { link, state, masks, metrics: () => ({ density: densityOf(masks), flipRate: state.flipRate }) };
}

/** Drops and grows in place. @returns the positions that were not there before */
export function rewire(
  mask: Uint8Array,
  weight: FloatArray,
  gradient: FloatArray,
  { drop, grow }: Rewiring,
  growth: Growth,
  random: Random,
): number[] {
  const before = mask.slice();
  const present: number[] = [];
  for (let i = 0; i < mask.length; i++) if (mask[i] === 1) present.push(i);
  mask.fill(0);
  for (const i of largest(weight, present, present.length - drop)) mask[i] = 1;
  const free: number[] = [];
  for (let i = 0; i < mask.length; i++) if (mask[i] === 0) free.push(i);
  const chosen =
    growth === "random"
      ? Array.from(permutation(random, free.length).subarray(0, grow), (k) => free[k])
      : largest(gradient, free, Math.min(grow, free.length));
  for (const i of chosen) mask[i] = 1;
  return chosen.filter((i) => before[i] === 0);
}

/** The positions among those given that have the largest magnitudes. */
function largest(values: FloatArray, among: readonly number[], count: number): number[] {
  const [chosen] = topS([Float32Array.from(among, (i) => values[i])], count);
  return among.filter((_, k) => chosen[k] === 1);
}

/** Puts the moments of grown connections to 0, wherever in an optimiser's state they are. */
function forgetMoments(state: State, name: string, positions: readonly number[]): void {
  for (const [key, value] of Object.entries(state)) {
    if (isStateArray(value)) {
      if (key === name) for (const i of positions) value[i] = 0;
    } else if (typeof value === "object") {
      forgetMoments(value, name, positions);
    }
  }
}

/** Share of the connections that an update replaces: f₀/2 · (1 + cos πt/T). */
export const cosineShare = (initial: number, step: number, until: number): number =>
  step >= until ? 0 : (initial / 2) * (1 + Math.cos((Math.PI * step) / until));

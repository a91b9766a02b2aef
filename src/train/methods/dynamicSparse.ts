import type { Pattern } from "../../compress/index.js";
import { type Random, UsageError } from "../../core/index.js";
import { topS } from "../../tensor/internal.js";
import { adamW } from "../optimizers/adamW.js";
import { chain, type Link } from "../optimizers/link.js";
import { keepMasks } from "../optimizers/links.js";
import { permutation, randomFor } from "../seeds.js";
import { dropUnits, type Units, unitNorms, unitsPresent } from "../selection/groups.js";
import { applyMasks, densityOf, flips, fullMasks, kept } from "../selection/masks.js";
import { isCoupled, unitsOf } from "../selection/patterns.js";
import { isStateArray, type State, stateOf } from "../state.js";
import { type FloatArray, isSparsifiable } from "../values.js";
import type { MethodContext, MethodRun } from "./contract.js";
import { erkCounts } from "./erk.js";

/** Which absent connections to grow: "gradient" the largest |dL/dW| (RigL), "random" any (SET). */
export type Growth = "gradient" | "random";

/** What one update of the connections of a matrix does. A connection is a weight, a block, a row or a column. */
export interface Rewiring {
  /** Connections to drop of those there are: the smallest norms. */
  drop: number;
  /**
   * Connections to grow of all that were not kept; a dropped one may come back and then keeps its values. In N:M each group
   * grows as many as it lost.
   */
  grow: number;
}

export interface DynamicSparseOptions {
  /** What a connection is. */
  structure: Pattern;
  density: number;
  /** "erk" or the same density in every matrix. */
  distribution: "erk" | "uniform";
  growth: Growth;
  /** Whether connections move in this step; otherwise it is the optimiser's. */
  due(step: number): boolean;
  /**
   * @param ones connections the matrix has
   * @param size connections it could have
   */
  rewire(step: number, ones: number, size: number): Rewiring;
}

/**
 * Sparse from the first step to the last, with connections that move: now and then a step drops the weakest and grows new
 * ones at 0 with fresh moments, in place of the optimiser's step. The engine's gradient reaches absent weights too.
 */
export function dynamicSparse(context: MethodContext, options: DynamicSparseOptions): MethodRun {
  const { parameters, weights, optimizer, seed } = context;
  const { structure, density, distribution, growth } = options;
  if (isCoupled(structure)) {
    throw new UsageError(
      `${structure.type} cannot come back: all of their weights would start at 0, where they get no gradient`,
    );
  }
  if (structure.type === "nm" && distribution === "erk") {
    throw new UsageError("every group of N:M keeps as many; the distribution can only be uniform");
  }
  const masks = fullMasks(parameters, weights);
  const erk = distribution === "erk" ? erkCounts(parameters.filter(isSparsifiable), density) : undefined;
  const sets = unitsOf(parameters, structure).map((units) => ({ units, name: units.members[0].name }));
  for (const { units, name } of sets) {
    const share = erk === undefined ? density : erk.get(name)! / masks.get(name)!.length;
    dropUnits(units, randomUnits(units, share, randomFor(seed, `mask ${name}`)), masks);
  }
  applyMasks(weights, masks);
  const state = { masks: stateOf(masks), flipRate: 0 };
  const base = chain(keepMasks(masks), adamW(optimizer), keepMasks(masks));

  const link: Link = {
    init: base.init,
    update(updates, linkState, current, step) {
      if (!options.due(step)) return base.update!(updates, linkState, current, step);
      let flipped = 0;
      for (const { units, name } of sets) {
        const present = unitsPresent(units, masks);
        const plan = options.rewire(step, kept(present), units.count);
        const gradients = unitNorms(units, updates);
        rewire(present, unitNorms(units, current), gradients, plan, growth, randomFor(seed, name, step), units.pool);
        const mask = masks.get(name)!;
        const old = mask.slice();
        mask.fill(1);
        dropUnits(units, present, masks);
        forgetMoments(linkState, name, (i) => mask[i] === 1 && old[i] === 0);
        flipped += flips(old, mask);
      }
      state.flipRate = flipped / Array.from(masks.values()).reduce((sum, mask) => sum + mask.length, 0);
      for (const values of updates.values()) values.fill(0);
    },
    settle: (current, linkState, step) => base.settle!(current, linkState, step),
  };
  return { link, state, masks, metrics: () => ({ density: densityOf(masks), flipRate: state.flipRate }) };
}

/**
 * Drops and grows in place.
 * @param mask u8, 1 for connections that there are
 * @param weight their norms, or their values
 * @param pool connections that share a budget; fewer than all of them grow as many as they lost
 */
export function rewire(
  mask: Uint8Array,
  weight: FloatArray,
  gradient: FloatArray,
  { drop, grow }: Rewiring,
  growth: Growth,
  random: Random,
  pool: number = mask.length,
): void {
  const before = mask.slice();
  const present = where(mask, 0, mask.length, 1);
  mask.fill(0);
  for (const i of largest(weight, present, present.length - drop)) mask[i] = 1;
  for (let start = 0; start < mask.length; start += pool) {
    const end = start + pool;
    const free = where(mask, start, end, 0);
    const lost = kept(before.subarray(start, end)) - (pool - free.length);
    const count = Math.min(pool < mask.length ? lost : grow, free.length);
    const chosen =
      growth === "random"
        ? Array.from(permutation(random, free.length).subarray(0, count), (k) => free[k])
        : largest(gradient, free, count);
    for (const i of chosen) mask[i] = 1;
  }
}

function where(mask: Uint8Array, start: number, end: number, value: number): number[] {
  const found: number[] = [];
  for (let i = start; i < end; i++) if (mask[i] === value) found.push(i);
  return found;
}

/** u8 [count]: as many units of every pool as its share says, anywhere. */
function randomUnits({ count, pool }: Units, share: number, random: Random): Uint8Array {
  const present = new Uint8Array(count);
  for (let start = 0; start < count; start += pool) {
    for (const i of permutation(random, pool).subarray(0, Math.round(share * pool))) present[start + i] = 1;
  }
  return present;
}

/** The positions among those given that have the largest magnitudes. */
function largest(values: FloatArray, among: readonly number[], count: number): number[] {
  const [chosen] = topS([Float32Array.from(among, (i) => values[i])], count);
  return among.filter((_, k) => chosen[k] === 1);
}

/** Puts the moments of grown connections to 0, wherever in an optimiser's state they are. */
function forgetMoments(state: State, name: string, grown: (entry: number) => boolean): void {
  for (const [key, value] of Object.entries(state)) {
    if (isStateArray(value)) {
      if (key === name) for (let i = 0; i < value.length; i++) if (grown(i)) value[i] = 0;
    } else if (typeof value === "object") {
      forgetMoments(value, name, grown);
    }
  }
}

/** Share of the connections that an update replaces: f₀/2 · (1 + cos πt/T). */
export const cosineShare = (initial: number, step: number, until: number): number =>
  step >= until ? 0 : (initial / 2) * (1 + Math.cos((Math.PI * step) / until));

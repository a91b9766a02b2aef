import type { UnitType } from "../structured.js";
import {
  type ByUnit,
  bestTrade,
  importanceSums,
  masksOf,
  rankUnits,
  type UnitImportances,
  type UnitMasks,
} from "./search.js";

/** What one layer of a kind takes with so many units: measured. */
export interface TimedUnits {
  units: number;
  milliseconds: number;
}

/** What a layer of a kind takes: nothing without units, `base` up to `threshold` of them, then `perUnit` more for each. */
export interface LatencyModel {
  base: number;
  threshold: number;
  perUnit: number;
}

/** What a layer of so many units takes, in milliseconds. */
export const latencyOf = ({ base, threshold, perUnit }: LatencyModel, units: number): number =>
  units === 0 ? 0 : base + perUnit * Math.max(0, units - threshold);

/**
 * The piecewise-linear model nearest to what was measured, by least squares at every threshold; no unit takes less than nothing.
 * @param table one entry or more, of ascending units
 */
export function fitLatency(table: readonly TimedUnits[]): LatencyModel {
  let best: { model: LatencyModel; error: number } | undefined;
  for (const { units: threshold } of table) {
    const model = fitAt(table, threshold);
    const error = table.reduce(
      (sum, { units, milliseconds }) => sum + (latencyOf(model, units) - milliseconds) ** 2,
      0,
    );
    if (best === undefined || error < best.error) best = { model, error };
  }
  return best!.model;
}

/** milliseconds ≈ base + perUnit · max(0, units − threshold) */
function fitAt(table: readonly TimedUnits[], threshold: number): LatencyModel {
  const beyond = table.map(({ units }) => Math.max(0, units - threshold));
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [x, y] = [mean(beyond), mean(table.map(({ milliseconds }) => milliseconds))];
  let [xx, xy] = [0, 0];
  for (const [i, { milliseconds }] of table.entries()) {
    xx += (beyond[i] - x) ** 2;
    xy += (beyond[i] - x) * (milliseconds - y);
  }
  const perUnit = xx === 0 ? 0 : Math.max(0, xy / xx);
  return { base: y - perUnit * x, threshold, perUnit };
}

/** A layer that stays keeps its best `threshold` units, which all together take what one does; the others compete. */
interface Layers {
  /** Blocks by what their base holds, the most first. */
  order: number[];
  base: Float64Array;
  /** Of the first n layers: what else is in them, ranked. */
  extras: { ranked: ReturnType<typeof rankUnits>; sums: Float64Array }[];
}

function layersOf(importances: readonly Float64Array[], { threshold }: LatencyModel): Layers {
  const sorted = importances.map((of) => Array.from(of.keys()).sort((a, b) => of[b] - of[a] || a - b));
  const base = Float64Array.from(importances, (of, block) =>
    sorted[block].slice(0, threshold).reduce((sum, unit) => sum + of[unit], 0),
  );
  const order = Array.from(base.keys()).sort((a, b) => base[b] - base[a] || a - b);
  const extras = Array.from({ length: order.length + 1 }, (_, count) => {
    const stays = new Set(order.slice(0, count));
    const inBase = sorted.map((units) => new Set(units.slice(0, threshold)));
    const ranked = rankUnits(importances).filter(({ block, unit }) => stays.has(block) && !inBase[block].has(unit));
    return { ranked, sums: importanceSums(ranked) };
  });
  return { order, base, extras };
}

/**
 * Which units stay so that what all layers take is within a share of what they take now (Kwon et al. 2022, section 4.1). Every
 * number of attention and feed-forward layers that go as a whole is tried, those with the least in their base first; what of the
 * budget the bases of the others leave is shared between heads and neurons as under a budget of multiply-adds.
 * @param share in (0, 1]
 */
export function searchMasksByLatency(
  importances: UnitImportances,
  models: ByUnit<LatencyModel>,
  share: number,
): UnitMasks & { milliseconds: number } {
  const all = (kind: UnitType) => importances[kind].reduce((sum, of) => sum + latencyOf(models[kind], of.length), 0);
  const budget = share * (all("heads") + all("neurons"));
  const layers = {
    heads: layersOf(importances.heads, models.heads),
    neurons: layersOf(importances.neurons, models.neurons),
  };
  const costs = { heads: models.heads.perUnit, neurons: models.neurons.perUnit };
  const baseOf = (kind: UnitType, count: number) =>
    layers[kind].order.slice(0, count).reduce((sum, block) => sum + layers[kind].base[block], 0);
  let best = { heads: { layers: 0, extra: 0 }, neurons: { layers: 0, extra: 0 }, importance: 0 };
  for (let heads = 0; heads <= importances.heads.length; heads++) {
    for (let neurons = 0; neurons <= importances.neurons.length; neurons++) {
      const left = budget * (1 + 1e-12) - heads * models.heads.base - neurons * models.neurons.base;
      if (left < 0) break;
      const sums = { heads: layers.heads.extras[heads].sums, neurons: layers.neurons.extras[neurons].sums };
      const extra = bestTrade(sums.heads, sums.neurons, costs, left, 0)!;
      const importance = baseOf("heads", heads) + baseOf("neurons", neurons) + extra.importance;
      if (importance <= best.importance) continue;
      best = {
        heads: { layers: heads, extra: extra.heads },
        neurons: { layers: neurons, extra: extra.neurons },
        importance,
      };
    }
  }
  const masks = (kind: UnitType): Uint8Array[] => {
    const { order, extras } = layers[kind];
    const { layers: count, extra } = best[kind];
    const stays = new Set(order.slice(0, count));
    const bases = rankUnits(importances[kind]).filter(({ block }) => stays.has(block));
    const beyond = new Set(extras[count].ranked.map(({ block, unit }) => `${block}.${unit}`));
    const inBase = bases.filter(({ block, unit }) => !beyond.has(`${block}.${unit}`));
    return masksOf([...inBase, ...extras[count].ranked.slice(0, extra)], importances[kind]);
  };
  const found = { heads: masks("heads"), neurons: masks("neurons") };
  const taken = (kind: UnitType) =>
    found[kind].reduce(
      (sum, mask) =>
        sum +
        latencyOf(
          models[kind],
          mask.reduce((n, keep) => n + keep, 0),
        ),
      0,
    );
  return { ...found, milliseconds: taken("heads") + taken("neurons") };
}

import { describe, expect, test } from "vitest";
import { trainMethods } from "../../src/train/methods/index.js";
import { pruneSurvivors } from "../../src/train/methods/lottery.js";
import type { Masks } from "../../src/train/optimizers/links.js";
import { constant } from "../../src/train/optimizers/schedule.js";
import { dropUnits, unitsPresent } from "../../src/train/selection/groups.js";
import { applyMasks, fullMasks, kept, markNonZeros } from "../../src/train/selection/masks.js";
import { structureOption, unitsOf } from "../../src/train/selection/patterns.js";
import { Training } from "../../src/train/training.js";
import type { FloatArray } from "../../src/train/values.js";
import { threeLayerBatch, threeLayers, threeLayerWeights } from "./threeLayers.js";

/** Every structure with every method that takes one: what becomes zero together, and the units that stay of those there are. */

const steps = 40;

async function begin(id: string, options: object, rate = 0.01) {
  const { method } = await trainMethods[id]();
  return new Training({
    objective: threeLayers(),
    weights: threeLayerWeights(1),
    optimizer: { rate: constant(rate), weightDecay: 0.1 },
    steps,
    seed: 3,
    method: (context) => method.start(context, method.options.parse(options)),
  });
}

const parameters = threeLayers().parameters;

function nonZeros(weights: ReadonlyMap<string, FloatArray>): Masks {
  const masks = fullMasks(parameters, weights);
  markNonZeros(weights, masks);
  return masks;
}

/** The units of a structure that there are, by set. */
const present = (masks: Masks, structure: string): number[] =>
  unitsOf(parameters, structureOption.parse(structure)).map((units) => kept(unitsPresent(units, masks)));

/** Whether every unit of the masks is there or not as a whole. */
function whole(masks: Masks, structure: string): boolean {
  const rebuilt = fullMasks(parameters, threeLayerWeights(0));
  for (const units of unitsOf(parameters, structureOption.parse(structure)))
    dropUnits(units, unitsPresent(units, masks), rebuilt);
  return [...masks].every(([name, mask]) => mask.every((keep, i) => keep === rebuilt.get(name)![i]));
}

/** Units of a, b and c [12, 8], [12, 12], [4, 12]: entries, blocks of 4 × 2, rows, columns, and the neurons of two layers. */
const counts: Record<string, number[]> = {
  unstructured: [96, 144, 48],
  "block:4x2": [12, 18, 6],
  rows: [12, 12, 4],
  columns: [8, 12, 12],
  neurons: [12, 12],
};
const structures = Object.keys(counts);

/** Where the trained weights are not 0. */
async function trained(id: string, options: object, rate?: number): Promise<Masks> {
  const training = await begin(id, options, rate);
  for (let step = 0; step < steps; step++) await training.advance(threeLayerBatch(step));
  return nonZeros(training.finish());
}

describe("methods with a pattern", () => {
  const pattern = (structure: string, sparsity: number) => ({ ...structureOption.parse(structure), sparsity });
  test.each(
    ["ste", "sr-ste", "ast", "cast", "fixed-mask"].flatMap((id) => structures.map((structure) => [id, structure])),
  )("%s in %s", async (id, structure) => {
    const options = { pattern: pattern(structure, 0.5), ...(id === "fixed-mask" && { mask: "magnitude" }) };
    const masks = await trained(id, options);
    expect(present(masks, structure)).toEqual(counts[structure].map((n) => n / 2));
    expect(whole(masks, structure)).toBe(true);
  });

  test.each(structures.filter((structure) => structure !== "neurons"))("s-ste in %s", async (structure) => {
    const masks = await trained("s-ste", { pattern: pattern(structure, 0.5) });
    for (const [k, there] of present(masks, structure).entries())
      expect(there).toBeLessThanOrEqual(counts[structure][k] / 2);
    expect(whole(masks, structure)).toBe(true);
    expect([...masks.values()].some((mask) => mask.includes(1))).toBe(true);
  });
});

describe("methods with a schedule of their own", () => {
  test.each(structures)("gradual in %s", async (structure) => {
    const masks = await trained("gradual", { structure, final: 0.75, interval: 4 });
    expect(present(masks, structure)).toEqual(counts[structure].map((n) => n - Math.round(0.75 * n)));
    expect(whole(masks, structure)).toBe(true);
  });

  test("gradual on the way to 1:4 goes through 3 of 4 and 2 of 4", async () => {
    const training = await begin("gradual", { structure: "1:4", interval: 1 });
    const largest: number[] = [];
    for (let step = 0; step < steps; step++) {
      await training.advance(threeLayerBatch(step));
      const mask = training.run.masks!.get("b")!;
      const groups = Array.from({ length: 36 }, (_, g) => kept(mask.subarray(4 * g, 4 * g + 4)));
      expect(new Set(groups).size).toBe(1);
      largest.push(groups[0]);
    }
    expect([...new Set(largest)]).toEqual([4, 3, 2, 1]);
  });

  test.each(structures)("iht in %s, global and by layer", async (structure) => {
    const layer = await trained("iht", { structure, density: 0.5, scope: "layer" });
    const inner = { unstructured: 72, "block:4x2": 9, rows: 6, columns: 6 };
    const found = present(layer, structure);
    if (structure === "neurons") expect(found).toEqual([6, 6]);
    else expect(found).toEqual([counts[structure][0], inner[structure as keyof typeof inner], counts[structure][2]]);

    const global = await trained("iht", { structure, density: 0.5, scope: "global" });
    const all = counts[structure].reduce((a, b) => a + b);
    expect(present(global, structure).reduce((a, b) => a + b)).toBe(Math.round(all / 2));
    expect(whole(global, structure)).toBe(true);
  });

  test("iht in 2:4 ends in the largest two of every four", async () => {
    const training = await begin("iht", { structure: "2:4", scope: "global" });
    for (let step = 0; step < steps; step++) {
      await training.advance(threeLayerBatch(step));
      for (const values of training.weights.values()) {
        for (let g = 0; g < values.length; g += 4) {
          expect(values.subarray(g, g + 4).filter((w) => w !== 0).length).toBeLessThanOrEqual(2);
        }
      }
    }
  });

  test.each(structures)("the group lasso in %s makes whole units zero", async (structure) => {
    const lambda = structure === "neurons" ? 0.25 : 0.5;
    const masks = await trained("l1", { structure, variant: "decoupled", lambda }, 0.02);
    const there = present(masks, structure).reduce((a, b) => a + b);
    expect(there).toBeGreaterThan(0);
    expect(there).toBeLessThan(counts[structure].reduce((a, b) => a + b));
    expect(whole(masks, structure)).toBe(true);
  });

  test.each(
    ["set", "rigl"].flatMap((id) =>
      [...structures, "2:4"].filter((structure) => structure !== "neurons").map((structure) => [id, structure]),
    ),
  )("%s in %s keeps its number of units while they move", async (id, structure) => {
    const settings = structure === "2:4" ? {} : { density: 0.5, distribution: "uniform" };
    const training = await begin(id, { structure, interval: 5, until: 1, ...settings });
    const sets = unitsOf(parameters, structureOption.parse(structure));
    const now = () => sets.map((units) => unitsPresent(units, training.run.masks!));
    const first = now();
    for (let step = 0; step < steps; step++) {
      await training.advance(threeLayerBatch(step));
      for (const [k, there] of now().entries()) {
        const pool = sets[k].pool;
        for (let start = 0; start < there.length; start += pool) {
          expect(kept(there.subarray(start, start + pool))).toBe(Math.round(pool / 2));
        }
      }
    }
    expect(now()).not.toEqual(first);
    expect(whole(training.run.masks!, structure)).toBe(true);
    const { weights } = training;
    for (const [name, mask] of training.run.masks!) {
      expect(weights.get(name)!.every((w, i) => w === 0 || mask[i] === 1)).toBe(true);
    }
  });

  test.each(structures.filter((structure) => structure !== "neurons"))("grow-prune in %s", async (structure) => {
    const training = await begin("grow-prune", { structure, initial: 0.25, peak: 0.75, final: 0.5, interval: 3 });
    for (let step = 0; step < steps; step++) await training.advance(threeLayerBatch(step));
    expect(present(training.run.masks!, structure)).toEqual(counts[structure].map((n) => Math.round(0.5 * n)));
  });

  test.each(structures)("a lottery round in %s drops the share of what is left", (structure) => {
    const weights = threeLayerWeights(1);
    const masks = fullMasks(parameters, weights);
    let expected = counts[structure];
    for (let round = 0; round < 3; round++) {
      pruneSurvivors(masks, weights, parameters, 0.25, structureOption.parse(structure));
      applyMasks(weights, masks);
      expect(nonZeros(weights)).toEqual(masks);
      const lastShare = structure === "neurons" ? 0.25 : 0.125;
      expected = expected.map((n, k) => n - Math.round((k === expected.length - 1 ? lastShare : 0.25) * n));
      expect(present(masks, structure)).toEqual(expected);
      expect(whole(masks, structure)).toBe(true);
    }
  });
});

test.each<[string, string, object, RegExp]>([
  ["SET with neurons", "set", { structure: "neurons" }, /neurons cannot come back/],
  ["RigL with neurons", "rigl", { structure: "neurons" }, /neurons cannot come back/],
  ["grow-prune with neurons", "grow-prune", { structure: "neurons" }, /neurons cannot come back/],
  ["grow-prune with N:M", "grow-prune", { structure: "2:4" }, /density of keep:group is fixed/],
  ["RigL with N:M over ERK", "rigl", { structure: "2:4", distribution: "erk" }, /can only be uniform/],
  ["a density that is not that of N:M", "iht", { structure: "2:4", density: 0.3 }, /keeps a share of 0.5, not 0.3/],
  ["gradual to another sparsity than N:M's", "gradual", { structure: "2:4", final: 0.9 }, /leave the share out/],
  ["lottery tickets with N:M", "lottery", { structure: "2:4" }, /lottery tickets change it/],
  ["L1 towards N:M", "l1", { structure: "2:4" }, /no norm leads to keep:group/],
  ["the group lasso in Adam's metric", "l1", { structure: "rows", variant: "metric" }, /use variant=decoupled/],
  ["S-STE with neurons", "s-ste", { pattern: { type: "neurons", sparsity: 0.5 } }, /every matrix by itself/],
  ["heads where there are none", "gradual", { structure: "heads" }, /no heads/],
  ["blocks that do not fit", "gradual", { structure: "block:5x5" }, /a: 12 rows are not a multiple of 5/],
])("%s is refused", async (_name, id, options, message) => {
  await expect(begin(id, options)).rejects.toThrow(message);
});

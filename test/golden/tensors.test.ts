import { describe, expect, test } from "vitest";
import { families, linearsOf, readModelSpec, sitesOf, tensorsOf, unitsOf } from "../../src/arch/index.js";
import { openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { architectureNames, encoderNames, path } from "./golden.js";

const names = [...architectureNames, ...encoderNames];

/** The description of a golden checkpoint, and the shapes of its tensors. */
async function described(name: string) {
  const checkpoint = await openCheckpoint(directoryFiles(path(`arch/${name}`)));
  const shapes = new Map(Array.from(checkpoint.tensors, ([tensor, { shape }]) => [tensor, [...shape]]));
  const spec = readModelSpec(checkpoint.config, `${name}/config.json`);
  await checkpoint.close();
  return { spec, shapes };
}

test("every family has a golden checkpoint", async () => {
  const covered = await Promise.all(names.map(async (name) => (await described(name)).spec.modelType));
  expect(new Set(covered)).toEqual(new Set(Object.keys(families)));
});

describe.each(names)("%s", (name) => {
  test("the description names every tensor of the checkpoint with its shape, and none besides", async () => {
    const { spec, shapes } = await described(name);
    expect(new Map(tensorsOf(spec).map(({ name, shape }) => [name, [...shape]]))).toEqual(shapes);
  });

  test("ids are unique in a block, sites are as wide as what reads there, units divide their maps", async () => {
    const { spec } = await described(name);
    // Terraformer's thin products and chosen units are none that methods prune.
    const least = spec.modelType === "terraformer" ? { maps: 2, units: 0 } : { maps: 6, units: 2 };
    for (const block of spec.blocks) {
      const ids = linearsOf(block).map(({ id }) => id);
      expect(ids.length).toBeGreaterThanOrEqual(least.maps);
      expect(new Set(ids).size).toBe(ids.length);
      for (const { site, readers } of sitesOf(block)) {
        for (const map of readers) expect(map.cols, `${site.id} of ${map.id}`).toBe(site.width);
      }
      const units = unitsOf(block);
      expect(units.length).toBeGreaterThanOrEqual(least.units);
      for (const { group, count, maps } of units) {
        for (const { map, axis } of maps) expect(map[axis] % count, `${group}: ${map.id}`).toBe(0);
      }
    }
  });
});

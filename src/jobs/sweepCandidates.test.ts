import { describe, expect, test } from "vitest";
import { parseRecipe, presetRecipe, type RecipeInput } from "../compress/index.js";
import { sweepCandidates } from "./sweepCandidates.js";

describe("candidates", () => {
  const named = (name: string, stages: RecipeInput["stages"]) => ({
    name,
    recipe: parseRecipe({ version: 1, stages }, name),
  });

  test("every recipe at every level, called after both", () => {
    const recipes = ["wanda-2:4", "gptq-4"].map((name) => ({ name, recipe: presetRecipe(name) }));
    const candidates = sweepCandidates(recipes, [0.5, { keep: 4, group: 8 }]);
    expect(candidates.map(({ name }) => name)).toEqual(["wanda-0.5", "wanda-4of8", "gptq-4"]);
    expect(candidates.map(({ recipe }) => recipe.stages[0])).toMatchObject([
      { method: "wanda", pattern: { type: "unstructured", sparsity: 0.5 } },
      { method: "wanda", pattern: { type: "nm", keep: 4, group: 8 } },
      { type: "quantize" },
    ]);
  });

  test("shapes of patterns stay, factors keep the rest", () => {
    const recipes = [
      named("dir/slim.yaml", [
        { type: "prune", method: "wanda", pattern: { type: "heads", sparsity: 0.1 } },
        { type: "quantize", method: "rtn" },
      ]),
      named("low.json", [{ type: "lowRank", method: "svd", rank: 4 }]),
    ];
    const [slim, low] = sweepCandidates(recipes, [0.25]);
    expect(slim).toMatchObject({
      name: "slim-0.25",
      recipe: { stages: [{ pattern: { type: "heads", sparsity: 0.25 } }, {}] },
    });
    expect(low).toMatchObject({ name: "low-0.25", recipe: { stages: [{ keepRatio: 0.75, rank: undefined }] } });
    expect(parseRecipe(JSON.parse(JSON.stringify(low.recipe)), "again").stages).toHaveLength(1);
    expect(() => sweepCandidates(recipes.slice(1), [{ keep: 2, group: 4 }])).toThrow(
      /low rank and masks have no keep:group/,
    );
    expect(() => sweepCandidates(recipes, [0.5, { keep: 2, group: 4 }])).toThrow(/pattern heads has no keep:group/);
  });

  test("without levels recipes are taken as they are; equal names are refused", () => {
    const recipes = [
      named("a.yaml", [{ type: "poolHeads", kvHeads: 1 }]),
      { name: "wanda-50", recipe: presetRecipe("wanda-50") },
    ];
    expect(sweepCandidates(recipes, undefined).map(({ name }) => name)).toEqual(["a", "wanda-50"]);
    expect(() => sweepCandidates([...recipes, recipes[0]], [0.5])).toThrow(/two candidates are called a;/);
    expect(() => sweepCandidates([{ ...recipes[0], name: "sweep.json" }], undefined)).toThrow(/cannot be called sweep/);
  });
});

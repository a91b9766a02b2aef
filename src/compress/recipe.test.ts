import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FormatError, ProblemsError } from "../core/index.js";
import { checkRecipe } from "./checkRecipe.js";
import { presetRecipe, presets } from "./presets.js";
import { parseRecipe, type RecipeInput } from "./recipe.js";
import type { RecipeTarget, TargetMatrix } from "./recipeTarget.js";

const heads = (axis: "rows" | "cols") => ({ units: [{ kind: "heads" as const, group: "attention", axis }] });
const neurons = (axis: "rows" | "cols") => ({ units: [{ kind: "neurons" as const, group: "mlp", axis }] });

/** Two blocks of a decoder: 8 query heads and 4 key and value heads of 32, 704 neurons. */
const target: RecipeTarget = {
  blocks: Array.from({ length: 2 }, () => ({ queryHeads: 8, kvHeads: 4 })),
  matrices: [0, 1].flatMap((layer) => {
    const of = (
      module: string,
      role: string,
      rows: number,
      cols: number,
      more: Partial<TargetMatrix>,
    ): TargetMatrix => ({
      key: `${layer}.${role}`,
      layer,
      role,
      names: [`model.layers.${layer}.${module}.${role}.weight`],
      rows,
      cols,
      ...more,
    });
    return [
      of("self_attn", "q_proj", 256, 256, { ...heads("rows"), inputsFrom: "norm" }),
      of("self_attn", "k_proj", 128, 256, { ...heads("rows"), inputsFrom: "norm", keysOrValues: true }),
      of("self_attn", "v_proj", 128, 256, { ...heads("rows"), inputsFrom: "norm", keysOrValues: true }),
      of("self_attn", "o_proj", 256, 256, { ...heads("cols"), inputsFrom: "values" }),
      of("mlp", "gate_proj", 704, 256, { ...neurons("rows"), inputsFrom: "norm" }),
      of("mlp", "up_proj", 704, 256, { ...neurons("rows"), inputsFrom: "norm" }),
      of("mlp", "down_proj", 256, 704, { ...neurons("cols"), inputsFrom: "map" }),
    ];
  }),
};
const recipe = (...stages: unknown[]) => parseRecipe({ version: 1, stages }, "test.json");
async function problemsOf(...stages: unknown[]): Promise<readonly string[]> {
  try {
    await checkRecipe(recipe(...stages), target);
  } catch (error) {
    if (error instanceof ProblemsError) return error.problems;
    throw error;
  }
  return [];
}
const sparsegpt = (change: object = {}) => ({ type: "prune", method: "sparsegpt", pattern: "2:4", ...change });

describe("recipes", () => {
  it("fill in defaults, so that what is stored says everything", async () => {
    const full = recipe(sparsegpt());
    expect(full).toMatchObject({ seed: 0, calibration: { windows: 64, window: 512 } });
    const [stage] = await checkRecipe(full, target);
    expect(stage.options).toEqual({ blockSize: 128, damping: 0.01, counting: "exact" });
    expect(stage.matrices).toHaveLength(14);
    expect(parseRecipe(JSON.parse(JSON.stringify(full)), "again")).toEqual(full);
  });

  it("names all wrong fields", () => {
    expect(() =>
      parseRecipe({ version: 2, stages: [sparsegpt({ pattern: "4:2" }), { type: "explode" }] }, "r.yaml"),
    ).toThrow(/r\.yaml: version: .*\(also stages\.0\.pattern: .*; stages\.1\.type: /);
  });

  it.each([
    [{ stages: [sparsegpt()] }, "version"],
    [{ version: 2, stages: [sparsegpt()] }, "version"],
    [{ version: 1, stages: [] }, "stages"],
    [{ version: 1, stages: [sparsegpt({ pattern: "4:2" })] }, "stages.0.pattern"],
    [{ version: 1, stages: [sparsegpt({ path: "../x" })] }, "stages.0"],
    [{ version: 1, stages: [{ type: "lowRank", method: "svd" }] }, "stages.0"],
    [{ version: 1, stages: [{ type: "lowRank", method: "svd", rank: 4, keepRatio: 0.5 }] }, "stages.0"],
    [{ version: 1, stages: [{ type: "explode" }] }, "stages.0.type"],
    [{ version: 1, stages: [sparsegpt()], calibration: { windows: 1e9, window: 512 } }, "calibration.windows"],
    ["recipe", undefined],
  ])("refuse %j at %s", (raw, field) => {
    try {
      parseRecipe(raw, "bad.yaml");
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(FormatError);
      expect((error as FormatError).details).toMatchObject({ file: "bad.yaml", field });
    }
  });

  it("any JSON value is taken or refused with FormatError", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (raw) => {
        try {
          parseRecipe(raw, "any");
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
      }),
    );
  });

  it("choose tensors by targets and ignore", async () => {
    const stage = sparsegpt({
      targets: ["model.layers.*.mlp.*.weight"],
      ignore: ["model.layers.0.**", "**.down_proj.weight"],
    });
    const [{ matrices }] = await checkRecipe(recipe(stage), target);
    expect(matrices).toEqual(["1.gate_proj", "1.up_proj"]);
  });

  it("all problems of all stages are reported at once", async () => {
    const problems = await problemsOf(
      { type: "prune", method: "wanda", pattern: { type: "nm", keep: 1, group: 3 } },
      sparsegpt({ options: { blockSize: 0, dampening: 1 } }),
      { type: "quantize", method: "gpt-q" },
      sparsegpt({ targets: ["transformer.h.*"] }),
    );
    expect(problems.filter((p) => p.startsWith("stage 1 (prune wanda): model.layers."))).toHaveLength(7);
    expect(problems).toContain(
      "stage 1 (prune wanda): model.layers.*.mlp.down_proj.weight: 704 columns are not a multiple of 3 (1:3), in 2 layers",
    );
    expect(problems.filter((p) => p.startsWith("stage 2"))).toHaveLength(2);
    expect(problems).toContainEqual(expect.stringMatching(/^stage 3 .*no method "gpt-q"; there are rtn, gptq/));
    expect(problems).toContain('stage 4 (prune sparsegpt): "transformer.h.*" matches no matrix of the model');
    expect(problems).toContain("stage 4 (prune sparsegpt): no tensors are left to work on");
  });

  it.each<[string, unknown[], RegExp]>([
    [
      "a pattern it lacks",
      [{ type: "prune", method: "wrp", pattern: 0.5 }],
      /no pattern unstructured; it has keep:group/,
    ],
    [
      "a scope it lacks",
      [{ type: "prune", method: "wanda", pattern: { type: "unstructured", sparsity: 0.5, scope: "global" } }],
      /per row or tensor, not per global/,
    ],
    ["its own limits", [sparsegpt({ options: { blockSize: 30 } })], /blockSize 30 is not a multiple of 4/],
    ["quantise, then prune", [{ type: "quantize", method: "rtn" }, sparsegpt()], /an earlier stage quantised it/],
    [
      "prune, then low rank",
      [sparsegpt(), { type: "lowRank", method: "svdllm", keepRatio: 0.5 }],
      /factors would fill its zeros/,
    ],
    [
      "low rank, then quantise",
      [
        { type: "lowRank", method: "svd", keepRatio: 0.5 },
        { type: "quantize", method: "rtn" },
      ],
      /replaced it by factors/,
    ],
    [
      "a rank too high",
      [{ type: "lowRank", method: "svd", rank: 200, targets: ["**.k_proj.weight"] }],
      /rank 200 is more than the 128 of 128 × 256/,
    ],
    ["a rank that saves nothing", [{ type: "lowRank", method: "svd", rank: 100 }], /rank 100 are no smaller than 128/],
    [
      "half a group",
      [
        {
          type: "prune",
          method: "magnitude",
          pattern: { type: "neurons", sparsity: 0.5 },
          ignore: ["**.up_proj.weight"],
        },
      ],
      /neurons are shared with up_proj/,
    ],
    ["layers dropped late", [sparsegpt(), { type: "dropLayers", count: 1 }], /before anything else/],
    ["all layers dropped", [{ type: "dropLayers", count: 2 }], /2 layers of 2; at least one must stay/],
    [
      "factors with no place to go",
      [{ type: "scale", method: "smoothquant", targets: ["**.o_proj.weight"] }],
      /8 query heads share 4/,
    ],
    ["heads that do not pool", [{ type: "poolHeads", kvHeads: 3 }], /4 key and value heads do not divide into 3/],
  ])("%s", async (_name, stages, expected) => {
    const problems = await problemsOf(...stages);
    expect(problems.length).toBeGreaterThan(0);
    for (const problem of problems) expect(problem).toMatch(expected);
  });

  it("shapes are those that earlier stages leave", async () => {
    const neurons = { type: "prune", method: "magnitude", pattern: { type: "neurons", sparsity: 0.5 } };
    const down = { targets: ["**.down_proj.weight"] };
    expect(await problemsOf(neurons, sparsegpt({ ...down, pattern: "8:32" }))).toEqual([]);
    const tighter = { ...neurons, pattern: { type: "neurons", sparsity: 0.25 }, multipleOf: 8 };
    expect(await problemsOf(tighter, sparsegpt({ ...down, pattern: "8:32", options: { blockSize: 96 } }))).toEqual([
      expect.stringMatching(/layers\.\*\.mlp\.down_proj.*, in 2 layers$/),
    ]);
    expect(await problemsOf({ ...tighter, shrink: false }, sparsegpt({ ...down, pattern: "8:32" }))).toEqual([]);
    // With one threshold for all blocks the count is only known to be a multiple of 8.
    const global = { ...tighter, pattern: { type: "neurons", sparsity: 0.25, scope: "global" } };
    expect(await problemsOf(global, sparsegpt({ ...down, pattern: "4:8" }))).toEqual([]);
    expect(await problemsOf(global, sparsegpt({ ...down, pattern: "8:16" }))).toHaveLength(1);
    expect(await problemsOf({ ...neurons, multipleOf: 3, pattern: { type: "neurons", sparsity: 0.11 } })).toEqual([
      expect.stringMatching(/layers\.\*\.mlp: 627 neurons stay; only multiples of 4 can be run, in 2 layers$/),
    ]);
    const pool = { type: "poolHeads", kvHeads: 2 };
    const heads = { type: "prune", method: "magnitude", pattern: { type: "heads", sparsity: 0.25 } };
    expect(await problemsOf(heads, pool)).toEqual([
      expect.stringMatching(/3 key and value heads do not divide into 2/),
    ]);
    expect(await problemsOf(pool, { type: "lowRank", method: "svd", rank: 64, targets: ["**.k_proj.weight"] })).toEqual(
      [
        expect.stringMatching(
          /layers\.\*\.self_attn\.k_proj\.weight: factors of rank 64 are no smaller than 64 × 256, in 2 layers$/,
        ),
      ],
    );
  });

  it.each(Object.keys(presets))("preset %s fits the model", async (name) => {
    expect((await checkRecipe(presetRecipe(name), target)).length).toBe(presets[name].stages.length);
    expect(presetRecipe(name).title).toBe(presets[name].title);
  });

  it("an unknown preset is named with those there are", () => {
    expect(() => presetRecipe("toString")).toThrow(/no preset "toString"; there are sparsegpt-50/);
    const input: RecipeInput = { version: 1, stages: [{ type: "poolHeads", kvHeads: 1 }] };
    expect(parseRecipe(input, "typed").stages).toHaveLength(1);
  });
});

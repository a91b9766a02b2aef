import { describe, expect, it } from "vitest";
import { FormatError } from "../core/index.js";
import { parseRecipeText } from "./recipeText.js";

const yaml = `
# Half of the weights, then 4 bits.
version: 1
calibration: { windows: 32 }
stages:
  - type: prune
    method: sparsegpt
    pattern: 2:4
    ignore: ["**.layers.0.**"]
  - type: quantize
    method: gptq
    options: { bits: 4 }
`;

describe("recipe files", () => {
  it("YAML and JSON mean the same", async () => {
    const recipe = await parseRecipeText(yaml, "r.yaml");
    expect(recipe).toMatchObject({
      calibration: { windows: 32, window: 512, order: "first" },
      stages: [{ pattern: { type: "nm", keep: 2, group: 4 }, ignore: ["**.layers.0.**"] }, { options: { bits: 4 } }],
    });
    expect(await parseRecipeText(JSON.stringify(recipe), "r.json")).toEqual(recipe);
  });

  it.each([
    ["not YAML", "stages: [", /r: .*line 1/],
    ["a key twice", "version: 1\nversion: 1", /r: .*unique/],
    ["no object", "- 1", /r: /],
    ["an unknown key", `${yaml}\nshell: rm`, /r: .*shell/],
    ["code", "version: !!js/function 'x'", /r: Unresolved tag/],
    ["a version to come", "version: 2\nstages: []", /version/],
    ["a bomb of aliases", bomb(), /r: .*alias/i],
    ["too much", "#".repeat(250_001), /characters/],
    [
      "many keys, one twice",
      `${Array.from({ length: 20_000 }, (_, i) => `k${i}: 1`).join("\n")}\nk5: 2`,
      /unique: "k5" occurs twice/,
    ],
    ["too deep", `a: ${"[".repeat(100_000)}`, /deep|recipe|r: /],
  ])("%s is refused with the file's name", async (_name, text, message) => {
    const parsed = parseRecipeText(text, "r");
    await expect(parsed).rejects.toThrow(message);
    await expect(parsed).rejects.toThrow(FormatError);
  });
});

/** Nine levels of ten aliases each. */
function bomb(): string {
  const lines = ["version: 1", "a0: &a0 [x]"];
  for (let i = 1; i < 9; i++)
    lines.push(
      `a${i}: &a${i} [${Array(10)
        .fill(`*a${i - 1}`)
        .join(",")}]`,
    );
  return lines.join("\n");
}

import { readdirSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { families } from "../src/arch/index.js";

const root = fileURLToPath(new URL("../src", import.meta.url));

/** Source files without their comments, by path under src/ with forward slashes; AssemblyScript is among them. */
const code = new Map(
  readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts") && !entry.name.endsWith(".test.ts"))
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !path.includes("node_modules"))
    .map((path) => [relative(root, path).split(sep).join("/"), withoutComments(readFileSync(path, "utf8"))] as const),
);

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/(^|\s)\/\/.*$/gm, "$1");
}

const filesWith = (pattern: RegExp): string[] =>
  Array.from(code, ([path, text]) => (pattern.test(text) ? path : ""))
    .filter((path) => path !== "")
    .sort();

/** Who may know what Llama's maps and tensors are called, and why. */
const knowsNames: Readonly<Record<string, string>> = {
  "arch/parts.ts": "gives every map the name of its role",
  "arch/modelConfig.ts": "reads single numbers off the maps of these roles",
  "cli/commands/finetune.ts": "matrices to adapt are called by their roles",
  "cli/largeShape.ts": "makes up a Llama checkpoint of random weights",
  "compress/checkRecipe.ts": "names maps in its messages",
  "compress/presets.ts": "recipes call matrices by their roles",
  "compress/recipe.ts": "recipes call matrices by their roles",
  "io/artifactVersion1.ts": "version 1 had seven maps, and is read for ever",
  "jobs/adapterTraining.ts": "matrices to adapt are called by their roles",
  "pipeline/compress/block.ts": "a matrix of any family is found under its role in Llama's words too",
  "train/adapters/ia3.ts": "matrices to adapt are called by their roles",
  "train/experiments/adapterProtocol.ts": "matrices to adapt are called by their roles",
};

/** Families by whose names others go too: kinds of tokenizers, and what new models are made like. */
const sharedNames = new Set(["llama", "bert", "gpt2", "qwen2", "mixtral", "terraformer"]);

describe("what a model is made of is asked of its description", () => {
  test("a family is one file and its entry in the list: nothing else names it", () => {
    const own = Object.keys(families).filter((name) => !sharedNames.has(name));
    const named = filesWith(new RegExp(`\\b(?:${own.join("|")})\\b`));
    expect(named).toContain("arch/families/index.ts");
    expect(named.filter((path) => !path.startsWith("arch/families/"))).toEqual([]);
  });

  test("no names of tensors or maps outside of arch/families but where there is a reason", () => {
    const found = filesWith(/_proj|model\.layers|transformer\.h\b/).filter(
      (path) => !path.startsWith("arch/families/"),
    );
    expect(found).toEqual(Object.keys(knowsNames).sort());
  });

  test("no closed lists of maps or places", () => {
    expect(filesWith(/\b(tapSites|TapSite|Projection|projectionCosts)\b/)).toEqual([]);
  });
});

describe("formats are looked up", () => {
  test("no id of a format is taken apart as a string", () => {
    const takesApart =
      /\b\w*(?:format|structure)\w*(?:\.id)?\.(?:startsWith|endsWith|lastIndexOf|indexOf|split|slice)\(\s*["'`]/i;
    expect(filesWith(takesApart)).toEqual([]);
  });

  test("no code of a format is compared by order", () => {
    expect(filesWith(/\bformat\w* (?:<=|>=|<|>) format[A-Z]\w*/)).toEqual([]);
  });
});

describe("messages speak to whom they are for", () => {
  /** What other tools and our own commands are called with, said in full. */
  const wholeCommand = /\b(?:rarefy [a-z]+|llama-gguf-split)\b.*?--[a-z]/;

  test("those of the library name options as programs give them, not flags", () => {
    const flags = Array.from(code, ([path, text]) =>
      path.startsWith("cli/")
        ? []
        : text
            .split("\n")
            .filter((line) => /["`](?:[^"`]|\\`)*(?<![\w-])--[a-z$]/.test(line) && !wholeCommand.test(line))
            .map((line) => `${path}: ${line.trim()}`),
    ).flat();
    expect(flags).toEqual([]);
  });

  test("the command line puts its flags there, which it has", async () => {
    const { withFlags } = await import("../src/cli/flags.js");
    const help = readFileSync(join(root, "../docs/cli.md"), "utf8");
    const named = Array.from(code, ([path, text]) =>
      path.startsWith("cli/")
        ? []
        : [...text.matchAll(/\\?`([a-z]\w*)\\?`(?= [a-z]|[),:]| \$|")/g)].map(([, name]) => name),
    ).flat();
    const flags = [...new Set(named)].map((name) => withFlags(`\`${name}\``)).filter((flag) => flag.startsWith("--"));
    expect(flags.length).toBeGreaterThan(20);
    for (const flag of flags) expect(help).toMatch(new RegExp(`${flag}[ ,\\n]`));
    expect(withFlags("a window (`window`), `distilLoss` of `npm x`; `other`")).toBe(
      "a window (--window), --distil-loss of `npm x`; `other`",
    );
    expect(withFlags("(`windows`) `calibration`")).toBe("(--calibration-windows) --calib");
  });
});

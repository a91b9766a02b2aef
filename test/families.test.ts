import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { families, readModelSpec } from "../src/arch/index.js";
import { refuseUntraced } from "../src/train/trace/steps.js";
import { architectureNames, encoderNames, path } from "./golden/golden.js";

/** The table of docs/formats.md, by family: what its columns say. */
function table(): ReadonlyMap<string, Readonly<Record<string, string>>> {
  const page = readFileSync(new URL("../docs/formats.md", import.meta.url), "utf8");
  const [head, _, ...rows] = page
    .slice(page.indexOf("## Families"))
    .split("\n### ")[0]
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) => line.split("|").map((cell) => cell.trim()));
  return new Map(
    rows.flatMap((cells) => {
      const said = Object.fromEntries(head.map((name, i) => [name, cells[i]]));
      return [...cells[1].matchAll(/`(\w+)`/g)].map(([, name]) => [name, said] as const);
    }),
  );
}

const goldens = [...architectureNames, ...encoderNames].map((name) => ({
  name,
  config: JSON.parse(readFileSync(path(`arch/${name}/config.json`), "utf8")) as { model_type: string },
}));

test("the docs tell of every family, and of none besides", () => {
  expect(new Set(table().keys())).toEqual(new Set(Object.keys(families)));
});

test("a family is said to run where a golden checkpoint of it is run", () => {
  const run = new Set(goldens.map(({ config }) => config.model_type));
  for (const [family, said] of table())
    expect(said["reference, WebAssembly, native, WebGPU"] !== "no", family).toBe(run.has(family));
});

test.each(goldens)("$name: the docs say truly whether it is trained, and written and read as GGUF", ({ config }) => {
  const said = table().get(config.model_type)!;
  const spec = readModelSpec(config, "config.json");
  const trained = () => refuseUntraced(spec);
  if (said.trained === "no") expect(trained).toThrow(/cannot be trained yet/);
  else expect(trained).not.toThrow();
  expect(!said.GGUF.startsWith("no")).toBe(families[config.model_type].gguf !== undefined);
});

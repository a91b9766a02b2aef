import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { families, readModelSpec } from "../src/arch/index.js";
import { decoderSchedule } from "../src/train/engine/device/deviceDecoder.js";
import { modelParameters } from "../src/train/models/parameters.js";
import { refuseUntraced } from "../src/train/trace/steps.js";
import { covered } from "./golden/covered.js";
import { path } from "./golden/golden.js";

const goldens = covered.run.map((name) => {
  const config = JSON.parse(readFileSync(path(`arch/${name}/config.json`), "utf8")) as { model_type: string };
  return { name, family: config.model_type, spec: readModelSpec(config, "config.json") };
});

/** Whether the engine, and whether kernels of our own on a GPU, train it. */
function trained({ spec }: (typeof goldens)[number]): { engine: boolean; gpu: boolean } {
  try {
    refuseUntraced(spec);
  } catch {
    return { engine: false, gpu: false };
  }
  return { engine: true, gpu: decoderSchedule(spec, modelParameters(spec), 16) !== undefined };
}

const yes = (is: boolean) => (is ? "yes" : "");

/** A row of the table for each family, of what its golden checkpoint goes through. */
const rows = Object.entries(families).map(([family, { gguf }]) => {
  const golden = goldens.find((one) => one.family === family);
  const is = (what: keyof typeof covered) => yes(golden !== undefined && covered[what].includes(golden.name));
  const { engine, gpu } = golden === undefined ? { engine: false, gpu: false } : trained(golden);
  return {
    "`model_type`": `\`${family}\``,
    reference: is("run"),
    WebAssembly: is("run"),
    native: is("run"),
    WebGPU: is("run"),
    TEAL: is("thresholds"),
    pruned: is("compressed"),
    quantised: is("compressed"),
    trained: yes(engine),
    "… by GPU kernels": yes(gpu),
    GGUF: gguf === undefined ? "" : `\`${gguf.architecture}\``,
  };
});

function markdown(rows: readonly Readonly<Record<string, string>>[]): string {
  const names = Object.keys(rows[0]);
  const widths = names.map((name) => Math.max(3, name.length, ...rows.map((row) => row[name].length)));
  const line = (cells: readonly string[]) => `| ${cells.map((cell, i) => cell.padEnd(widths[i])).join(" | ")} |\n`;
  const body = rows.map((row) => line(names.map((name) => row[name])));
  return [line(names), line(widths.map((width) => "-".repeat(width))), ...body].join("");
}

test("the table of families is what is described and tested; `vitest run test/families.test.ts -u` refreshes it", async () => {
  const file = new URL("../docs/formats.md", import.meta.url);
  const page = readFileSync(file, "utf8");
  const table = /\| `model_type`[\s\S]*?\n\n/;
  expect(page).toMatch(table);
  await expect(page.replace(table, `${markdown(rows)}\n`)).toMatchFileSnapshot(file.pathname);
});

test("every family runs from a golden checkpoint", () => {
  expect(rows.filter((row) => row.reference === "").map((row) => row["`model_type`"])).toEqual([]);
});

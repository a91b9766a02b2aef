import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Context } from "../../src/cli/command.js";
import { openComparison } from "../../src/cli/session.js";
import { parseRecipe } from "../../src/compress/index.js";
import { FormatError } from "../../src/core/index.js";
import { compressionOf, sha256Hex } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { calibrateToDirectory, compressToDirectory } from "../../src/jobs/index.js";
import { openModel } from "../../src/pipeline/index.js";
import { parseAttention, parseKv } from "../../src/runtime/index.js";
import { path } from "../golden/golden.js";

/** A pattern and a policy that a job chose are stored, and used where nothing else is asked for. */
const machine = { device: "cpu", structure: "dense", threads: 1 } as const;
let folder: string;
let output: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rarefy-inference-"));
  output = join(folder, "lean");
  const tokens = Uint32Array.from({ length: 256 }, (_, i) => (i * 37) % 90);
  await calibrateToDirectory(directoryFiles(path("arch/llama")), output, {
    ...machine,
    sparsity: 0,
    weights: "f32",
    window: 32,
    calibrationWindows: 2,
    attention: parseAttention("minference:budget=128,queries=4"),
    kv: parseKv("int8"),
    text: async () => ({ tokens, sha256: await sha256Hex("a text") }),
  });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test("rarefy.json names them, with the heads that were found on the text", async () => {
  const { inference } = JSON.parse(await readFile(join(output, "rarefy.json"), "utf8"));
  expect(inference.kv).toBe("int8");
  expect(inference.attention).toMatch(/^minference:budget=128,queries=4,heads=[avb]+(\.[avb]+)*$/);
  using opened = await openModel(directoryFiles(output), machine);
  expect(opened.attention?.text).toBe(inference.attention);
  expect(opened.kv?.text).toBe("int8");
});

test("models that are measured have them, unless others are asked for; dense has none", async () => {
  const context = { warn: () => {}, note: () => {} } as unknown as Context;
  const args = [output, "dense"];
  using own = await openComparison(context, args, machine);
  expect(own.variants.map(({ kv }) => kv?.text)).toEqual(["int8", undefined]);
  expect(own.variants.map(({ attention }) => attention?.text.split(":")[0])).toEqual(["minference", undefined]);
  const asked = { attention: parseAttention("causal"), kv: parseKv("full") };
  using other = await openComparison(context, [output], { ...machine, ...asked });
  expect(other.variants.map(({ attention, kv }) => [attention?.text, kv?.text])).toEqual([["causal", "full"]]);
});

test("a pattern that there is not is told by file and field", async () => {
  const file = join(output, "rarefy.json");
  const artifact = JSON.parse(await readFile(file, "utf8"));
  const written = (inference: unknown) => writeFile(file, JSON.stringify({ ...artifact, inference }));
  for (const [inference, field] of [
    [{ attention: "sideways:window=3" }, "inference.attention"],
    [{ kv: "recent:budget=0" }, "inference.kv"],
    [{ kv: 3 }, "inference.kv"],
    [{ speed: "fast" }, "inference"],
  ] as const) {
    await written(inference);
    const failure = await openModel(directoryFiles(output), machine).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(FormatError);
    expect(String(failure)).toContain(field);
  }
});

test("what calibration finds of a compressed model lies beside what its rarefy.json says of the weights", async () => {
  const pruned = join(folder, "pruned");
  const both = join(folder, "pruned-lean");
  const stages = [{ type: "prune", method: "magnitude", pattern: 0.5 }];
  await compressToDirectory(directoryFiles(path("arch/llama")), pruned, {
    recipe: parseRecipe({ version: 1, stages }, "the test"),
    store: "packed",
  });
  const tokens = Uint32Array.from({ length: 64 }, (_, i) => (i * 37) % 90);
  const text = async () => ({ tokens, sha256: await sha256Hex("a text") });
  const settings = { ...machine, sparsity: 0.4, window: 32, calibrationWindows: 2, text };
  await calibrateToDirectory(directoryFiles(pruned), both, settings);
  using opened = await openModel(directoryFiles(both), machine);
  expect(opened.model.thresholds?.maps[0].down_proj).toBeGreaterThan(0);
  expect(compressionOf(opened.artifact!)?.layers.length).toBe(opened.model.config.layers);
});

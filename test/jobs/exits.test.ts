import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Context } from "../../src/cli/command.js";
import { openComparison } from "../../src/cli/session.js";
import { FormatError, UsageError } from "../../src/core/index.js";
import { sha256Hex } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { calibrateToDirectory, trainExitsToDirectory } from "../../src/jobs/index.js";
import { openModel } from "../../src/pipeline/index.js";
import { collect, generate, parseExits, parseKv } from "../../src/runtime/index.js";
import { path } from "../golden/golden.js";

/** What is learned is stored beside what the model had, and runs where nothing else is asked for. */
const machine = { device: "cpu", structure: "dense", threads: 1 } as const;
const tokens = Uint32Array.from({ length: 256 }, (_, i) => (i * 37) % 90);
const text = async () => ({ tokens, sha256: await sha256Hex("a text") });
let folder: string;
let output: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rarefy-exits-"));
  const sparse = join(folder, "sparse");
  output = join(folder, "early");
  const window = { window: 32, calibrationWindows: 2 };
  const source = directoryFiles(path("arch/llama"));
  await calibrateToDirectory(source, sparse, {
    ...machine,
    ...window,
    sparsity: 0.2,
    weights: "f32",
    kv: parseKv("int8"),
    text,
  });
  await trainExitsToDirectory(directoryFiles(sparse), output, {
    ...machine,
    ...window,
    rule: "svm:fill=propagate",
    text,
  });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test("rarefy.json has classifiers for every layer but the last, and all it had", async () => {
  const artifact = JSON.parse(await readFile(join(output, "rarefy.json"), "utf8"));
  const before = JSON.parse(await readFile(join(folder, "sparse", "rarefy.json"), "utf8"));
  expect(artifact.activationSparsity).toEqual(before.activationSparsity);
  expect(artifact.inference).toEqual({ kv: "int8", exits: "svm:fill=propagate" });
  expect(artifact.exits.layers.map(({ layers }: { layers: number }) => layers)).toEqual([1]);
  expect(artifact.exits.crf.probed).toEqual([1]);
  expect(artifact.exits.calibration).toEqual({ textSha256: (await text()).sha256, windows: 2, window: 32 });
});

test("calibrating anew keeps them, and the rule that they run with", async () => {
  const again = join(folder, "again");
  await calibrateToDirectory(directoryFiles(output), again, {
    ...machine,
    ...{ window: 32, calibrationWindows: 2, sparsity: 0.4, weights: "f32", text },
  });
  const [before, after] = await Promise.all(
    [output, again].map(async (place) => JSON.parse(await readFile(join(place, "rarefy.json"), "utf8"))),
  );
  expect(after.exits).toEqual(before.exits);
  expect(after.inference).toEqual({ exits: "svm:fill=propagate" });
  expect(after.activationSparsity).not.toEqual(before.activationSparsity);
});

test("it runs with them; dense is without, and another rule takes what was trained", async () => {
  const context = { warn: () => {}, note: () => {} } as unknown as Context;
  using own = await openComparison(context, [output, "dense"], machine);
  expect(own.variants.map(({ exits }) => exits?.text)).toEqual(["svm:fill=propagate", undefined]);
  using other = await openComparison(context, [output], { ...machine, exits: parseExits("crf") });
  const [{ model, exits }] = other.variants;
  const { exits: counts } = await collect(generate(model, tokens.subarray(0, 4), { exits, maxTokens: 6, stopIds: [] }));
  expect(counts?.tokens).toBe(5);
  expect(counts?.probes).toBe(5);
});

test("a rule that was not trained is refused before anything is written, and one that does not fit the file by its field", async () => {
  const source = directoryFiles(path("arch/llama"));
  const made = trainExitsToDirectory(source, join(folder, "none"), { ...machine, rule: "perhaps", text });
  await expect(made).rejects.toThrow(UsageError);
  const short = trainExitsToDirectory(source, join(folder, "none"), { ...machine, window: 512, text });
  await expect(short).rejects.toThrow(/256 tokens/);
  await expect(readFile(join(folder, "none", "rarefy.json"))).rejects.toThrow(/ENOENT/);

  const file = join(output, "rarefy.json");
  const artifact = JSON.parse(await readFile(file, "utf8"));
  const { layers, crf, calibration } = artifact.exits;
  for (const [changed, field] of [
    [{ inference: { exits: "sideways" } }, "inference.exits"],
    [{ inference: { exits: "top:from=2" } }, "inference.exits"],
    [{ exits: undefined }, "inference.exits"],
    [{ exits: { layers: [], crf, calibration } }, "inference.exits"],
    [{ exits: { layers: [{ ...layers[0], svm: { gap: 1, top: 2 } }], calibration } }, "exits.layers.0.svm.bias"],
    [{ exits: { layers, crf: { ...crf, transitions: [[1, 2]] }, calibration } }, "exits.crf.transitions"],
    [{ exits: { layers, crf: { ...crf, gap: 1e9 }, calibration } }, "exits.crf.gap"],
    [{ exits: { layers, crf: { ...crf, probed: [0] }, calibration } }, "exits.crf.probed.0"],
  ] as const) {
    await writeFile(file, JSON.stringify({ ...artifact, ...changed }));
    const failure = await openModel(directoryFiles(output), machine).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(FormatError);
    expect(String(failure)).toContain(field);
  }
});

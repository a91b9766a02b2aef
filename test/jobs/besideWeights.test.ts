import { cp, mkdtemp, open, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type LocalModelFiles, sha256Hex } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import {
  calibrateToDirectory,
  offloadToDirectory,
  predictToDirectory,
  trainExitsToDirectory,
} from "../../src/jobs/index.js";
import { path } from "../golden/golden.js";

/** Jobs that write beside the weights of a model know their result by every byte of it, not by its config or its dates. */
const tokens = Uint32Array.from({ length: 128 }, (_, i) => (i * 37) % 90);
const text = { tokens, sha256: await sha256Hex("a text") };
const machine = { device: "cpu", structure: "dense", threads: 1 } as const;
const windows = { ...machine, window: 32, calibrationWindows: 2, text: async () => text };
type Job = (source: LocalModelFiles, output: string) => Promise<unknown>;
const jobs: Readonly<Record<string, Job>> = {
  calibrate: (source, output) => calibrateToDirectory(source, output, { ...windows, sparsity: 0.2 }),
  exits: (source, output) => trainExitsToDirectory(source, output, { ...windows, rule: "svm" }),
  offload: (source, output) => offloadToDirectory(source, output),
  predict: (source, output) =>
    predictToDirectory(source, output, { text, window: 32, windows: 4, rank: 4, threads: 1 }),
};

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rarefy-beside-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Changes one bit in the middle of the weights, and leaves length and name. */
async function flipBit(model: string): Promise<void> {
  await using file = await open(join(model, "model.safetensors"), "r+");
  const { size } = await file.stat();
  const byte = new Uint8Array(1);
  await file.read(byte, 0, 1, size - 100);
  byte[0] ^= 1;
  await file.write(byte, 0, 1, size - 100);
}

test.each(Object.entries(jobs))(
  "%s: the same model gives the same result, one changed bit is other work",
  async (name, job) => {
    const model = join(folder, `${name}-model`);
    const output = join(folder, name);
    await cp(path("arch/opt"), model, { recursive: true });
    const run = () => job(directoryFiles(model), output);
    await run();
    await run();
    await flipBit(model);
    await expect(run()).rejects.toThrow(/other settings, texts or weights/);
    // What was refused left what was there.
    expect(await readdir(output)).toContain("config.json");
  },
);

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { trainToDirectory } from "../../src/jobs/index.js";
import { unavailable } from "../train/deviceSupport.js";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "taught-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const window = 8;
const random = new Random(3);
const ids = (length: number) => Int32Array.from({ length }, () => random.integer(512));
const text = Uint32Array.from(ids(4 * window + 1));
/** The first half of every record is given. */
const records = {
  ...{ window, cut: 0, tokens: ids(4 * window) },
  labels: ids(4 * window).map((id, i) => (i % window < window / 2 ? -1 : id)),
};

test.skipIf(unavailable !== undefined).each([
  ["a text, its predictions and its blocks", text, { distil: 0.5, temperature: 2, match: { hidden: 0.5 } }],
  ["records", records, { distil: 0.7, distilLoss: "reverse-kl" as const }],
])("a student of %s learns on a GPU what it learns on the CPU", async (name, tokens, settings) => {
  const run = (device: "wasm" | "webgpu") =>
    trainToDirectory(directoryFiles("test/golden/arch/llama"), join(directory, `${name} ${device}`), {
      ...{ from: "weights", steps: 3, batch: 2, window, rate: 1e-3, device, ...settings },
      teacher: directoryFiles("test/golden/arch/smollm3"),
      tokens: async () => tokens,
      evaluationTokens: async () => tokens,
    });
  const [expected, found] = [await run("wasm"), await run("webgpu")];
  expect(found.finalLoss).toBeCloseTo(expected.finalLoss, 3);
  expect(found.perplexityAfter! / expected.perplexityAfter!).toBeCloseTo(1, 3);
  expect(found.perplexityAfter).not.toBe(found.perplexityBefore);
});

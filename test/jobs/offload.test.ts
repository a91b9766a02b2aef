import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { directoryFiles } from "../../src/io/index.node.js";
import { offloadToDirectory } from "../../src/jobs/index.js";
import { openModel } from "../../src/pipeline/index.js";
import { createServer } from "../../src/server/index.js";
import { answerOf, post, tinyDirectory, tinyServer } from "../server/tinyServer.js";

/** From a model directory to one that runs in less memory, and what a server makes of that. */

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "rarefy-offload-"));
});
afterAll(() => rm(scratch, { recursive: true }));

const olmoe = directoryFiles(fileURLToPath(new URL("../golden/arch/olmoe", import.meta.url)));

test("a mixture is offloaded by experts, and runs within its bound as it did", async () => {
  const output = join(scratch, "experts");
  const calibration = { text: { tokens: new Uint32Array(8), sha256: "" } as never, window: 4, windows: 2 };
  await expect(offloadToDirectory(olmoe, output, { calibration })).rejects.toThrow("uses are counted of neurons");
  const { layout, unitBytes } = await offloadToDirectory(olmoe, output, { weights: "q8" });
  expect({ layout, unitBytes }).toMatchObject({ layout: "experts", unitBytes: [{ of: "experts", units: 8 }] });
  const logitsOf = async (offload?: { residentBytes: number }) => {
    using opened = await openModel(directoryFiles(output), { threads: 1, weights: "q8", structure: "dense", offload });
    using cache = opened.model.createCache(8);
    const logits = (await opened.model.forward(Uint32Array.of(3, 17, 5), cache, 0))!;
    const values = await opened.model.backend.read(logits);
    opened.model.backend.release(logits);
    const { plan } = opened.model.offload ?? {};
    if (offload !== undefined) expect(plan!.fixedBytes + plan!.roomBytes).toBeLessThanOrEqual(offload.residentBytes);
    return [...values];
  };
  const refused = (await logitsOf({ residentBytes: 1 }).catch((error: Error) => error.message)) as string;
  const residentBytes = Number(/give at least (\d+)/.exec(refused)![1]);
  expect(await logitsOf({ residentBytes })).toEqual(await logitsOf());
});

test("a server answers two texts at once from a model that is read as it is needed", async () => {
  const output = join(scratch, "inputs");
  await offloadToDirectory(directoryFiles(tinyDirectory), output, {});
  const prompts = ["It was a dark night", "The sea"];
  const ask = (server: ReturnType<typeof tinyServer>) =>
    Promise.all(
      prompts.map(async (prompt) => {
        const body = { model: "tiny", prompt, max_tokens: 4, temperature: 0 };
        return (await answerOf(await post(server, "/v1/completions", body))).choices[0].text;
      }),
    );
  await using whole = tinyServer();
  const entry = { id: "tiny", files: () => directoryFiles(output), threads: 1 };
  await using bounded = createServer({ models: [{ ...entry, offload: { residentBytes: 10e6 } }] });
  expect(await ask(bounded)).toEqual(await ask(whole));
  await using small = createServer({ models: [{ ...entry, offload: { residentBytes: 1 } }] });
  await expect(small.load("tiny")).rejects.toThrow("give at least");
});

import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { memorySource } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { openModel, thresholdsAt } from "../../src/pipeline/index.js";
import { parseAttention } from "../../src/runtime/index.js";
import { createServer } from "../../src/server/index.js";
import { answerOf, post } from "./tinyServer.js";

const files = directoryFiles(fileURLToPath(new URL("../../models/tiny-6m", import.meta.url)));
/** At every place |x| is spread evenly up to this. */
const largest = { attentionInput: 1, attentionOutput: 0.04, mlpInput: 1, mlpHidden: 0.4 };
const site = (most: number) => ({
  values: 1000,
  zeros: 0,
  absQuantiles: Array.from({ length: 20 }, (_, q) => (most * (q + 1)) / 20),
});
const layer = Object.fromEntries(Object.entries(largest).map(([id, most]) => [id, site(most)]));
const artifact = { rarefy: 2, weights: "bf16", activations: Array.from({ length: 6 }, () => layer) };
/** tiny-6m with a record beside it. */
const withRecord = (record: object) => ({
  location: files.location,
  close: () => files.close(),
  open: async (name: string) =>
    name === "rarefy.json" ? memorySource(name, new TextEncoder().encode(JSON.stringify(record))) : files.open(name),
});
/** tiny-6m whose activations were looked at. */
const calibrated = withRecord(artifact);

test("thresholds of any share lie on the quantiles of each place", async () => {
  using opened = await openModel(calibrated, { threads: 1 });
  const { spec } = opened.model.config;
  const { maps } = thresholdsAt(opened.artifact, spec, 0.33);
  expect(maps).toHaveLength(6);
  expect(maps[0].q_proj).toBeCloseTo(0.33, 9);
  expect(maps[5].o_proj).toBeCloseTo(0.33 * 0.04, 9);
  expect(maps[3].down_proj).toBeCloseTo(0.33 * 0.4, 9);
  expect(thresholdsAt(opened.artifact, spec, 0.02).maps[0].up_proj).toBeCloseTo(0.02, 9);
  expect(() => thresholdsAt(undefined, spec, 0.3)).toThrow("calibrate");
  expect(() => thresholdsAt(opened.artifact, spec, 1)).toThrow("0.95");
});

test("each request runs as sparse as it asks, alone or beside others", async () => {
  const server = createServer({ models: [{ id: "tiny", files: () => calibrated, threads: 1 }] });
  const skipped = async () =>
    Number(
      /rarefy_sparse_inputs_skipped_total\{model="tiny"\} (\d+)/.exec(
        await (await server.app.request("/metrics")).text(),
      )?.[1],
    );
  const ask = async (rarefy: object) => {
    const body = { prompt: "It was a dark night, and", max_tokens: 12, temperature: 0, rarefy };
    return (await answerOf(await post(server, "/v1/completions", body))).choices[0].text;
  };
  const settings = [{}, { sparsity: 0.3 }, { sparsity: 0.6 }, { kv: "int8" }, { attention: "window:size=4" }];
  const alone: string[] = [];
  for (const setting of settings) {
    const before = await skipped();
    alone.push(await ask(setting));
    if ("sparsity" in setting) expect(await skipped()).toBeGreaterThan(before);
    else expect((await skipped()) || 0).toBe(before || 0);
  }
  expect(new Set([alone[0], alone[1], alone[2], alone[4]]).size).toBe(4);
  expect(await ask({ sparsity: 0 })).toBe(alone[0]);
  expect(await Promise.all(settings.map(ask))).toEqual(alone);
  await server[Symbol.asyncDispose]();
});

test("a model attends as its record says, unless the server or the request says otherwise", async () => {
  const tiny = (inference: object) => ({ files: () => withRecord({ rarefy: 2, inference }), threads: 1 });
  const windowed = tiny({ attention: "window:size=4" });
  await using server = createServer({
    models: [
      { ...windowed, id: "windowed" },
      { ...windowed, id: "served causal", attention: parseAttention("causal") },
      { ...tiny({ kv: "recent:budget=4" }), id: "evicting" },
    ],
  });
  const ask = async (model: string, rarefy: object = {}) => {
    const body = { model, prompt: "It was a dark night, and", max_tokens: 8, temperature: 0, rarefy };
    return (await answerOf(await post(server, "/v1/completions", body))).choices[0].text;
  };
  const plain = await ask("served causal");
  expect(await ask("windowed", { attention: "causal" })).toBe(plain);
  expect(await ask("windowed")).not.toBe(plain);
  expect(await ask("windowed")).toBe(await ask("served causal", { attention: "window:size=4" }));
  expect(await ask("evicting", { kv: "full" })).toBe(plain);
  expect(await ask("evicting")).not.toBe(plain);
});

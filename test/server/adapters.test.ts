import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { UsageError } from "../../src/core/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { createServer } from "../../src/server/index.js";
import { answerOf, type Json, post } from "./tinyServer.js";

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
const tiny = { files: () => directoryFiles(path("../../models/tiny-6m")), threads: 1 };
const adapter = (name: string, files: string) => ({ name, files: () => directoryFiles(path(`../golden/${files}`)) });
const adapters = [adapter("sea", "lora_qv_final"), adapter("start", "lora_qv_init")];

test("each text has the adapter that its request names, beside others in the same passes", async () => {
  await using server = createServer({ models: [{ id: "tiny", ...tiny, adapters }] });
  const ask = async (fields: object) => {
    const body = { prompt: "It was a dark night, and", max_tokens: 16, temperature: 0, logprobs: 1, ...fields };
    const { choices, model } = await answerOf(await post(server, "/v1/completions", body));
    return { text: choices[0].text as string, logprobs: choices[0].logprobs.token_logprobs as number[], model };
  };
  const plain = await ask({});
  const sea = await ask({ model: "tiny:sea" });
  expect([plain.model, sea.model]).toEqual(["tiny", "tiny:sea"]);
  expect(sea.text).not.toBe(plain.text);
  const together = await Promise.all([
    ask({ model: "tiny" }),
    ask({ model: "tiny", rarefy: { adapter: "sea" } }),
    ask({ model: "tiny:sea", rarefy: { adapter: "sea" } }),
    // Its pairs add nothing yet.
    ask({ model: "tiny:start" }),
  ]);
  expect(together.map(({ text }) => text)).toEqual([plain.text, sea.text, sea.text, plain.text]);
  expect(together[1].model).toBe("tiny:sea");
  for (const [i, logprob] of sea.logprobs.entries()) expect(together[1].logprobs[i]).toBeCloseTo(logprob, 3);

  // Nothing that was run with one adapter is taken for another text.
  const cached = async (model: string) => {
    const body = { model, prompt: "The ship went far over the water to a town of wood. ".repeat(3), max_tokens: 1 };
    return (await answerOf(await post(server, "/v1/completions", body))).usage.prompt_tokens_details.cached_tokens;
  };
  expect(await cached("tiny:sea")).toBe(0);
  expect(await cached("tiny")).toBe(0);
  expect(await cached("tiny:sea")).toBeGreaterThan(30);
});

test("adapters are listed, and one that is not there is refused by its field", async () => {
  await using server = createServer({ models: [{ id: "tiny", ...tiny, adapters }] });
  const list = async (at: string): Promise<Json> => (await server.app.request(`/v1/models${at}`)).json();
  expect((await list("")).data.map(({ id, parent }: Json) => [id, parent])).toEqual([
    ["tiny", undefined],
    ["tiny:sea", "tiny"],
    ["tiny:start", "tiny"],
  ]);
  expect((await list("/tiny:sea")).id).toBe("tiny:sea");
  const refused = async (fields: object) => {
    const response = await post(server, "/v1/completions", { prompt: "x", ...fields });
    const { error } = await response.json();
    return [response.status, error.param, error.message];
  };
  expect(await refused({ model: "tiny:law" })).toEqual([404, "model", expect.stringContaining("tiny:sea")]);
  expect(await refused({ model: "tiny", rarefy: { adapter: "law" } })).toEqual([
    400,
    "rarefy.adapter",
    expect.stringContaining("it has sea, start"),
  ]);
  expect(await refused({ model: "tiny:sea", rarefy: { adapter: "start" } })).toEqual([
    400,
    "rarefy.adapter",
    expect.stringContaining("one of the two"),
  ]);
});

test("two adapters of one name, and one of another model, are refused", async () => {
  const twice = [adapters[0], { ...adapters[1], name: "sea" }];
  expect(() => createServer({ models: [{ id: "tiny", ...tiny, adapters: twice }] })).toThrow(UsageError);
  const other = { id: "llama", files: () => directoryFiles(path("../golden/arch/llama")), threads: 1, adapters };
  await using server = createServer({ models: [other] });
  await expect(server.load("llama")).rejects.toThrow();
});

import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ModelSpec, readModelSpec, tensorsOf } from "../../src/arch/index.js";
import { gradientStatistics, pruneMethods } from "../../src/compress/index.js";
import { Random } from "../../src/core/index.js";
import { openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { type ChannelChoice, chooseChannels } from "../../src/jobs/channelSelection.js";
import { pruneChannelsToDirectory } from "../../src/jobs/index.js";
import { cutChannels, narrowModel } from "../../src/pipeline/internal.js";
import { decoderObjective, type FloatArray, modelParameters, readWeights } from "../../src/train/index.js";
import { logits, relativeDifference } from "../compress/support.js";
import { path } from "../golden/golden.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rarefy-channels-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const headDim = 16;
const specOf = ({ config }: { config: unknown }) => readModelSpec(config, "config.json");
const narrowTo = (checkpoint: MemoryCheckpoint) => (width: number) =>
  narrowModel(checkpoint.config, specOf(checkpoint), headDim, width, "config.json");
const text = (count: number) => {
  const random = new Random(3);
  return Uint32Array.from({ length: count }, () => random.integer(256));
};
const window = 8;

async function choiceBy(importance: string, more: Partial<ChannelChoice> = {}): Promise<ChannelChoice> {
  const { method } = await pruneMethods["llm-pruner"]();
  const options = method.options.parse({ importance });
  const needs = method.needs(options);
  return {
    method,
    options,
    sparsity: 0.5,
    multipleOf: 4,
    steps: 1,
    wanted: gradientStatistics.filter((id) => needs.includes(id)),
    windows: { tokens: text(2 * window), window },
    ...more,
  };
}

/** The checkpoint with these channels alone. */
async function cut(checkpoint: MemoryCheckpoint, kept: readonly number[]): Promise<MemoryCheckpoint> {
  const narrow = narrowTo(checkpoint)(kept.length);
  const result = new MemoryCheckpoint(narrow.config, new Map());
  for (const { name, dtype, shape, bytes } of cutChannels(checkpoint, specOf(checkpoint), narrow, kept)) {
    const pieces: Uint8Array[] = [];
    for await (const piece of bytes()) pieces.push(piece);
    result.tensors.set(name, { name, dtype, shape, bytes: new Uint8Array(Buffer.concat(pieces)) });
  }
  return result;
}

test("the channels of tiny-6m that go by their length are those of an independent implementation", async () => {
  const checkpoint = await openCheckpoint(directoryFiles(path("../../models/tiny-6m")));
  const spec = readModelSpec(checkpoint.config, "config.json");
  const narrow = (width: number) => narrowModel(checkpoint.config, spec, 64, width, "config.json").spec;
  const weights = await readWeights(checkpoint, modelParameters(spec));
  const choice = await choiceBy("l2", { sparsity: 52 / 256 });
  const { kept } = await chooseChannels(spec, weights, narrow, choice);
  const removed = Array.from({ length: 256 }, (_, channel) => channel).filter((channel) => !kept.includes(channel));
  expect(removed).toEqual(JSON.parse(await readFile(path("reference2.json"), "utf8")).llm_pruner.channels20_l2_removed);
  await checkpoint.close();
});

test("what a channel counts is what the loss is seen to change by as its parts grow", async () => {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  const spec = specOf(checkpoint);
  const parameters = modelParameters(spec);
  const weights = await readWeights(checkpoint, parameters);
  const choice = await choiceBy("vector", { windows: { tokens: text(window), window } });
  const { scores } = await chooseChannels(spec, weights, (width) => narrowTo(checkpoint)(width).spec, choice);
  using objective = await decoderObjective(spec, parameters, window, "wasm", { masked: true });
  const own = Int32Array.from(choice.windows!.tokens);
  const label = Int32Array.from(own, (_, t) => own[t + 1] ?? -1);
  const batch = { tokens: { shape: [window], values: own }, label: { shape: [window], values: label } };
  const lossWith = (name: string, values: FloatArray) => objective.loss(new Map(weights).set(name, values), batch);
  for (const channel of [0, 37]) {
    let expected = 0;
    for (const { name, shape } of parameters) {
      const cols = shape.at(-1)!;
      // Of this model the stream is 64 wide, and nothing else is.
      const rows = shape.length > 1 && /\.(o|down)_proj\.weight$/.test(name);
      const scaled = (by: number) =>
        weights
          .get(name)!
          .map((value, i) => ((rows ? Math.floor(i / cols) : i % cols) === channel ? by * value : value));
      const step = 0.02;
      expected +=
        Math.abs((await lossWith(name, scaled(1 + step))) - (await lossWith(name, scaled(1 - step)))) / 2 / step;
    }
    expect(scores[channel] / expected, `channel ${channel}`).toBeCloseTo(1, 2);
  }
});

test("a model without channels that are zero gives what the whole one gives, its norms of fewer channels", async () => {
  const whole = await MemoryCheckpoint.golden("llama");
  const before = specOf(whole).hiddenSize;
  const kept = Array.from({ length: before }, (_, channel) => channel).filter((channel) => channel % 4 !== 1);
  // The mean square of a norm is over fewer channels, and its epsilon is not smaller by that.
  const factor = Math.sqrt(before / kept.length);
  for (const { name, shape } of tensorsOf(specOf(whole))) {
    const values = whole.values(name);
    const isRow = /\.(o|down)_proj\.weight$/.test(name);
    if (isRow) for (let i = 0; i < values.length; i++) if (Math.floor(i / shape[1]) % 4 === 1) values[i] = 0;
    if (name.includes("embed_tokens"))
      for (let i = 0; i < values.length; i++) if ((i % before) % 4 === 1) values[i] = 0;
    whole.set(name, shape, values);
  }
  const narrow = await cut(whole, kept);
  for (const { name, shape } of tensorsOf(specOf(narrow)))
    if (name.includes("norm"))
      narrow.set(
        name,
        shape,
        narrow.values(name).map((value) => value * factor),
      );
  narrow.config.rms_norm_eps = (narrow.config.rms_norm_eps as number) * factor ** 2;
  expect(narrow.tensors.get("model.layers.0.mlp.down_proj.weight")!.shape).toEqual([kept.length, 160]);
  expect(relativeDifference(await logits(narrow), await logits(whole))).toBeLessThan(1e-5);
});

test("in steps, the importances of each are those of what the step before it left", async () => {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  const chosen = async (model: MemoryCheckpoint, sparsity: number, steps: number) => {
    const spec: ModelSpec = specOf(model);
    const weights = await readWeights(model, modelParameters(spec));
    const choice = await choiceBy("mixed", { sparsity, steps });
    return (await chooseChannels(spec, weights, (width) => narrowTo(model)(width).spec, choice)).kept;
  };
  const first = await chosen(checkpoint, 0.25, 1);
  const second = await chosen(await cut(checkpoint, first), 1 / 3, 1);
  const inSteps = await chosen(checkpoint, 0.5, 2);
  expect(inSteps).toEqual(second.map((i) => first[i]));
});

describe("as a job", () => {
  const source = () => directoryFiles(path("arch/llama"));
  const settings = {
    sparsity: 0.25,
    multipleOf: 4,
    window,
    windows: 2,
    calibration: { tokens: text(2 * window), sha256: "ab".repeat(32) },
  };

  test("one that was stopped leaves nothing; a result opens as the source without the channels that it names", async () => {
    const controller = new AbortController();
    const stopped = pruneChannelsToDirectory(source(), join(folder, "stopped"), {
      ...settings,
      signal: controller.signal,
      onProgress: ({ stage }) => stage.startsWith("gradients") && controller.abort(),
    });
    await expect(stopped).rejects.toThrow(/abort/i);
    expect(await readdir(folder)).not.toContain("stopped");
    const result = await pruneChannelsToDirectory(source(), join(folder, "stopped"), settings);
    expect(result.channels).toEqual({ before: 64, after: 48 });
    const config = JSON.parse(await readFile(join(folder, "stopped", "config.json"), "utf8"));
    expect([config.hidden_size, config.head_dim]).toEqual([48, 16]);
    const opened = await openCheckpoint(directoryFiles(join(folder, "stopped")));
    const expected = await cut(await MemoryCheckpoint.golden("llama"), result.kept);
    expect(await logits(opened)).toEqual(await logits(expected));
    await opened.close();
  });

  test.each([
    ["a family whose heads follow from the width", "gpt2", {}, /would change with the width|Prune neurons/],
    ["a method that reads inputs", "llama", { method: "wanda" }, /wanda judges weights by what enters/],
    ["no text", "llama", { calibration: undefined }, /needs a text/],
    ["a text too short", "llama", { windows: 9 }, /9 windows of 8 tokens are 72/],
    ["so few that rounding leaves all", "llama", { sparsity: 0.01, multipleOf: 32 }, /none that goes/],
    [
      "an option that is not the method's",
      "llama",
      { methodOptions: { importance: "third" } },
      /options of llm-pruner/,
    ],
  ])("%s is refused", async (_, model, more, message) => {
    const output = join(folder, "refused");
    const run = pruneChannelsToDirectory(directoryFiles(path(`arch/${model}`)), output, { ...settings, ...more });
    await expect(run).rejects.toThrow(message);
    expect(await readdir(folder)).not.toContain("refused");
  });
});

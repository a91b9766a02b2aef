import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ensureInstalled, rarefy, rarefyJson } from "../support/rarefy.js";
import { smallConfig, trainingText } from "./smallModel.js";

/** Context pruning from the command line: trained, run, measured and handed on. */

const scratch = mkdtempSync(join(tmpdir(), "rarefy-context-"));
const at = (name: string) => join(scratch, name);
const [text, config, dense, pruned] = ["text.txt", "config", "dense", "pruned"].map(at);
const small = [
  "--text",
  text,
  "--window",
  "32",
  "--batch",
  "1",
  "--warmup",
  "0",
  "--eval-text",
  text,
  "--max-tokens",
  "3000",
];
const finetune = (model: string, settings: string | undefined, output: string, more: string[] = []) =>
  rarefyJson([
    ...["finetune", model, ...small, "--rate", "3e-3", "-o", output],
    ...(settings === undefined ? [] : ["--context-pruning", settings]),
    ...more,
  ]);
const artifactOf = (directory: string) => JSON.parse(readFileSync(join(directory, "rarefy.json"), "utf8"));

let trained: Awaited<ReturnType<typeof rarefyJson>>;
let before: Awaited<ReturnType<typeof rarefyJson>>;
beforeAll(async () => {
  ensureInstalled();
  writeFileSync(text, trainingText(6000));
  smallConfig(config, { num_hidden_layers: 2 });
  before = await rarefyJson(["train", config, ...small, "--steps", "20", "--rate", "0.01", "-o", dense]);
  trained = await finetune(dense, "rank=8,weight=3,bias=1", pruned, ["--steps", "30"]);
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe("finetune --context-pruning", () => {
  test("begins at the dense model, stores what it has learnt, and says so", () => {
    // The other perplexity is that of the same weights before they were stored in bf16.
    expect(trained.perplexityBefore / before.perplexityAfter).toBeCloseTo(1, 2);
    const { blocks, origin } = artifactOf(pruned);
    expect(blocks.map(({ contextRank }: { contextRank: number }) => contextRank)).toEqual([8, 8]);
    expect(origin.training.contextPruning).toEqual({ rank: 8, weight: 3, bias: 1, from: 1, to: 8, until: 0.8 });
    const log = readFileSync(join(pruned, "training.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(log[0].alpha).toBe(1);
    expect(log.at(-1).alpha).toBe(8);
    expect(log.at(-1).contextLeft).toBeLessThan(0.9);
    for (const { loss, prediction, contextLeft } of log) expect(loss).toBeCloseTo(prediction + 3 * contextLeft, 4);
  });

  test("the runtime has the perplexity of the trainer, whether tokens are masked or gone", async () => {
    const windows = ["--text", text, "--window", "32", "--max-windows", "40", "--weights", "f32"];
    const results = await Promise.all(
      [[], ["--kv", "full"], ["--kv", "pruned"]].map((kv) => rarefyJson(["eval", pruned, ...windows, ...kv])),
    );
    for (const { perplexity } of results) {
      expect(perplexity / results[0].perplexity).toBeCloseTo(1, 4);
      // Windows of training meet, those of eval do not.
      expect(perplexity / trained.perplexityAfter).toBeGreaterThan(0.9);
      expect(perplexity / trained.perplexityAfter).toBeLessThan(1.1);
    }
    expect(results[2].attendedShare).toBeLessThan(0.95);
  });

  test("bench holds less and reads less, and run writes", async () => {
    const sizes = ["--context-tokens", "200", "--prefill-tokens", "64", "--decode-tokens", "4", "--repeats", "1"];
    const bench = async (kv: string) => (await rarefyJson(["bench", pruned, ...sizes, "--kv", kv])).rows?.[0] ?? {};
    const [full, less] = [await bench("full"), await bench("pruned")];
    expect(less.cacheBytes).toBeLessThan(full.cacheBytes);
    expect(less.bytesPerToken).toBeLessThan(full.bytesPerToken);
    const { code } = await rarefy(["run", pruned, "--prompt", "It was", "--max-tokens", "4", "--quiet"]);
    expect(code).toBe(0);
  });

  test("it is trained on as it is: hard without the flag, with α from the start with it", async () => {
    const on = await finetune(pruned, undefined, at("on"), ["--steps", "1"]);
    expect(on.perplexityBefore / trained.perplexityAfter).toBeCloseTo(1, 1);
    expect(artifactOf(at("on")).blocks[0].contextRank).toBe(8);
    const again = await finetune(pruned, "weight=0.1", at("again"), ["--steps", "1"]);
    expect(again.perplexityBefore / trained.perplexityAfter).toBeCloseTo(1, 1);
    expect(again.contextPruning.rank).toBe(8);
  });

  test("compression keeps it", async () => {
    const { code, stderr } = await rarefy([
      ...["compress", pruned, "--recipe", "magnitude-50", "-o", at("compressed"), "--quiet"],
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const { perplexity } = await rarefyJson([
      "eval",
      at("compressed"),
      "--text",
      text,
      "--window",
      "32",
      "--max-windows",
      "4",
    ]);
    expect(Number.isFinite(perplexity)).toBe(true);
    expect(artifactOf(at("compressed")).blocks[1].contextRank).toBe(8);
  });

  test.each<[string, () => string[], RegExp]>([
    [
      "another rank",
      () => ["finetune", pruned, ...small, "--context-pruning", "rank=16", "-o", at("x")],
      /rank of 8 already/,
    ],
    ["an unknown setting", () => ["finetune", dense, ...small, "--context-pruning", "beta=2", "-o", at("x")], /beta/],
    ["no number", () => ["finetune", dense, ...small, "--context-pruning", "rank=a", "-o", at("x")], /name=number/],
    [
      "an adapter",
      () => ["finetune", dense, ...small, "--context-pruning", "--lora", "-o", at("x")],
      /--context-pruning/,
    ],
    ["another policy", () => ["run", pruned, "--prompt", "a", "--kv", "h2o:budget=8"], /h2o:budget=8 does not go with/],
    ["a model that was not trained", () => ["run", dense, "--prompt", "a", "--kv", "pruned"], /not trained to prune/],
    ["another tool's files", () => ["export", pruned, "--format", "safetensors", "-o", at("x")], /prunes its context/],
  ])("%s is refused by name", async (_name, args, message) => {
    const { code, stderr } = await rarefy(args());
    expect(code).not.toBe(0);
    expect(stderr).toMatch(message);
  });
});

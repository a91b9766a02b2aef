import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ensureInstalled, rarefy, rarefyJson } from "../support/rarefy.js";
import { smallConfig, trainingText } from "./smallModel.js";

/** Gates in front of layers from the command line: trained, run, measured and handed on. */

const scratch = mkdtempSync(join(tmpdir(), "rarefy-gates-"));
const at = (name: string) => join(scratch, name);
const [text, config, dense, gated] = ["text.txt", "config", "dense", "gated"].map(at);
const small = ["--text", text, "--window", "32", "--batch", "1", "--warmup", "0", "--max-tokens", "3000"];
const eval_ = ["--eval-text", text];
const finetune = (model: string, gates: string | undefined, output: string, more: string[] = []) =>
  rarefyJson([
    ...["finetune", model, ...small, ...eval_, "--rate", "3e-3", "-o", output],
    ...(gates === undefined ? [] : ["--layer-gates", gates]),
    ...more,
  ]);
const artifactOf = (directory: string) => JSON.parse(readFileSync(join(directory, "rarefy.json"), "utf8"));

let trained: Awaited<ReturnType<typeof rarefyJson>>;
let before: Awaited<ReturnType<typeof rarefyJson>>;
beforeAll(async () => {
  ensureInstalled();
  writeFileSync(text, trainingText(6000));
  smallConfig(config, { num_hidden_layers: 2 });
  before = await rarefyJson(["train", config, ...small, ...eval_, "--steps", "20", "--rate", "0.01", "-o", dense]);
  trained = await finetune(dense, "hard:share=0.6,weight=100,units=sublayers", gated, ["--steps", "40"]);
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe("finetune --layer-gates", () => {
  test("begins at the dense model, stores what it has learnt, and says so", () => {
    // The other perplexity is that of the same weights before they were stored in bf16.
    expect(trained.perplexityBefore / before.perplexityAfter).toBeCloseTo(1, 2);
    const { blocks, origin } = artifactOf(gated);
    for (const { gates } of blocks) expect(gates).toEqual({ units: "sublayers", kind: "hard" });
    expect(origin.training.layerGates).toEqual({
      ...{ kind: "hard", share: 0.6, until: 0.5, weight: 100, units: "sublayers", bias: 1 },
    });
    const log = readFileSync(join(gated, "training.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    for (const [step, { loss, prediction, layerShare }] of log.entries()) {
      const target = 1 - 0.4 * Math.min(1, step / 20);
      expect(loss).toBeCloseTo(prediction + 100 * (layerShare - target) ** 2, 3);
    }
    expect(log.at(-1).layerShare).toBeLessThan(0.85);
  });

  test("the runtime has the perplexity of the trainer, and says what share of the layers was taken", async () => {
    const measured = await rarefyJson([
      ...["eval", gated, "--text", text, "--window", "32", "--max-windows", "40", "--weights", "f32"],
    ]);
    // Windows of training meet, those of eval do not.
    expect(measured.perplexity / trained.perplexityAfter).toBeGreaterThan(0.9);
    expect(measured.perplexity / trained.perplexityAfter).toBeLessThan(1.1);
    expect(measured.layerShare).toBeGreaterThan(0.3);
    expect(measured.layerShare).toBeLessThan(0.9);
  });

  test("bench reads less, inspect tells, and run writes", async () => {
    const sizes = ["--prefill-tokens", "64", "--decode-tokens", "16", "--repeats", "1"];
    const bench = async (model: string) => (await rarefyJson(["bench", model, ...sizes])).rows?.[0] ?? {};
    const [whole, less] = [await bench(dense), await bench(gated)];
    expect(less.layerShare).toBeLessThan(1);
    expect(less.bytesPerToken).toBeLessThan(whole.bytesPerToken);
    const { stdout } = await rarefy(["inspect", gated]);
    expect(stdout).toContain("gates that let tokens past attention and MLPs");
    const { code } = await rarefy(["run", gated, "--prompt", "It was", "--max-tokens", "4", "--quiet"]);
    expect(code).toBe(0);
  });

  test("it is trained on as it is, with the flag or without; train has gates from the start", async () => {
    const on = await finetune(gated, undefined, at("on"), ["--steps", "1"]);
    expect(on.perplexityBefore / trained.perplexityAfter).toBeCloseTo(1, 1);
    expect(artifactOf(at("on")).blocks[0].gates.kind).toBe("hard");
    const again = await finetune(gated, "topk:share=0.5,units=sublayers", at("again"), ["--steps", "1"]);
    expect(again.perplexityBefore / trained.perplexityAfter).toBeCloseTo(1, 1);
    const anew = await rarefyJson([
      ...["train", config, ...small, "--steps", "2", "--layer-gates", "soft", "-o", at("anew")],
    ]);
    expect(anew.layerGates.kind).toBe("soft");
    expect(artifactOf(at("anew")).blocks[1].gates).toEqual({ units: "block", kind: "soft" });
  });

  test("compression and calibration keep it", async () => {
    const made = [
      ["compress", gated, "--recipe", "wanda-50", "--calib", text, "--window", "32", "--calibration-windows", "4"],
      ["calibrate", gated, "--text", text, "--window", "32", "--calibration-windows", "4", "--sparsity", "0.3"],
    ];
    for (const [i, args] of made.entries()) {
      const { code, stderr } = await rarefy([...args, "-o", at(`made${i}`), "--quiet"]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      const measured = await rarefyJson([
        ...["eval", at(`made${i}`), "--text", text, "--window", "32", "--max-windows", "4"],
      ]);
      expect(Number.isFinite(measured.perplexity)).toBe(true);
      expect(measured.layerShare).toBeLessThan(1);
      expect(artifactOf(at(`made${i}`)).blocks[1].gates.units).toBe("sublayers");
    }
  });

  test.each<[string, () => string[], RegExp]>([
    [
      "other units",
      () => ["finetune", gated, ...small, "--layer-gates", "hard", "-o", at("x")],
      /hard gates in front of units=sublayers already/,
    ],
    ["an unknown setting", () => ["finetune", dense, ...small, "--layer-gates", "hard:beta=2", "-o", at("x")], /beta/],
    [
      "context pruning beside it",
      () => ["finetune", dense, ...small, "--layer-gates", "hard", "--context-pruning", "-o", at("x")],
      /--context-pruning/,
    ],
    [
      "an adapter",
      () => ["finetune", dense, ...small, "--layer-gates", "hard", "--lora", "-o", at("x")],
      /--layer-gates/,
    ],
    ["a policy", () => ["run", gated, "--prompt", "a", "--kv", "h2o:budget=8"], /h2o:budget=8 does not go with/],
    ["another tool's files", () => ["export", gated, "--format", "safetensors", "-o", at("x")], /gates in front of/],
  ])("%s is refused by name", async (_name, args, message) => {
    const { code, stderr } = await rarefy(args());
    expect(code).not.toBe(0);
    expect(stderr).toMatch(message);
  });
});

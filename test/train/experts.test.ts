import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readModelSpec } from "../../src/arch/index.js";
import { openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { trainableConfig, trainedMixture } from "../../src/train/index.js";
import { ensureInstalled, rarefy, rarefyJson } from "../support/rarefy.js";
import { smallConfig, trainingText } from "./smallModel.js";

/** Mixtures of experts and Q-Sparse on the command line. */

const scratch = mkdtempSync(join(tmpdir(), "rarefy-experts-"));
const at = (name: string) => join(scratch, name);
const [text, config] = [at("text.txt"), at("config")];
const mixtral = { model_type: "mixtral", num_local_experts: 4, num_experts_per_tok: 1, router_aux_loss_coef: 0.02 };
const small = ["--text", text, "--window", "8", "--batch", "2", "--warmup", "0", "--eval-text", text];

beforeAll(() => {
  ensureInstalled();
  writeFileSync(text, trainingText(6000));
  smallConfig(config, mixtral);
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Lines of the run log. */
const logOf = (directory: string): Record<string, number>[] =>
  readFileSync(join(directory, "training.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

async function withModel<T>(
  directory: string,
  use: (checkpoint: Awaited<ReturnType<typeof openCheckpoint>>) => Promise<T>,
): Promise<T> {
  const checkpoint = await openCheckpoint(directoryFiles(directory));
  try {
    return await use(checkpoint);
  } finally {
    await checkpoint.close();
  }
}

const biasName = "model.layers.0.block_sparse_moe.gate.e_score_correction_bias";

describe("a Mixtral-shaped config", () => {
  test.each([
    ["softmax", ["balance=0.05"], { balance: 0.05, zLoss: 0 }],
    ["bias", ["speed=0.01", "zLoss=0.001"], { speed: 0.01, zLoss: 0.001 }],
    ["relu", ["initial=0.0001"], { initial: 1e-4, factor: 1.2, zLoss: 0 }],
  ])("is trained with %s routing, and trained on with it", async (router, routerOptions, settings) => {
    const output = at(router);
    const args = ["train", config, ...small, "--rate", "0.01", "--steps", "24", "--router", router];
    const first = await rarefyJson([...args, "--router-option", ...routerOptions, "-o", output]);
    expect(first).toMatchObject({ router, routerOptions: settings });
    expect(first.perplexityAfter).toBeLessThan(0.9 * first.perplexityBefore);

    await withModel(output, async (checkpoint) => {
      expect((await trainableConfig(checkpoint)).experts).toEqual({ count: 4, perToken: 1, balance: 0.02 });
      expect(checkpoint.tensors.get("model.layers.0.block_sparse_moe.experts.3.w2.weight")!.shape).toEqual([32, 64]);
      expect(checkpoint.tensors.has(biasName)).toBe(router === "bias");
    });

    const log = logOf(output);
    // What balances experts is in the loss and not in the prediction.
    for (const { loss, prediction = loss } of log) expect(prediction).toBeLessThanOrEqual(loss);
    if (router !== "bias") expect(log[0].prediction).toBeLessThan(log[0].loss);
    if (router === "relu") {
      // About half of the gates are positive at the start, fewer than the wanted three silent of four: λ grows.
      expect(log[0].silentExperts).toBeGreaterThan(0.2);
      expect(log[0].silentExperts).toBeLessThan(0.75);
      expect(log[1].routerSparsityWeight / log[0].routerSparsityWeight).toBeCloseTo(1.2, 5);
    }

    // The router is the one it was trained with, and its biases go on: the first perplexity is the last one.
    const second = await rarefyJson(["finetune", output, ...small, "--steps", "1", "-o", at(`${router}-on`)]);
    expect(second.router).toBe(router);
    expect(second.perplexityBefore).toBeCloseTo(first.perplexityAfter, 2);
  });

  test("biases of a router are stored with the model and move by the speed alone", async () => {
    const biases = await withModel(at("bias"), (checkpoint) => checkpoint.readFloat32(biasName));
    expect(biases.some((b) => b !== 0)).toBe(true);
    for (const b of biases) expect(Math.abs(b / 0.01 - Math.round(b / 0.01))).toBeLessThan(1e-4);
  });

  test("its experts are pruned and kept pruned like any linear map", async () => {
    const output = at("sparse-experts");
    const options = ["--method", "sr-ste", "--method-option", "pattern=2:4"];
    const { sparsity } = await rarefyJson([
      "finetune",
      at("softmax"),
      ...small,
      "--steps",
      "2",
      ...options,
      "-o",
      output,
    ]);
    expect(sparsity).toBe(0.5);
    const w1 = await withModel(output, (checkpoint) =>
      checkpoint.readFloat32("model.layers.0.block_sparse_moe.experts.2.w1.weight"),
    );
    expect(w1.filter((w) => w === 0)).toHaveLength(w1.length / 2);
  });

  test.each(["softmax", "bias", "relu"])(
    "the runtime runs what was trained with %s routing, to the same perplexity",
    async (router) => {
      const windows = ["--text", text, "--window", "8", "--max-windows", "200", "--weights", "f32"];
      const { perplexity } = await rarefyJson(["eval", at(router), ...windows, "--experts"]);
      const { origin } = JSON.parse(readFileSync(join(at(router), "rarefy.json"), "utf8"));
      // Windows of training meet, those of eval do not.
      expect(perplexity / origin.training.perplexityAfter).toBeGreaterThan(0.9);
      expect(perplexity / origin.training.perplexityAfter).toBeLessThan(1.1);
    },
  );

  test("a config.json that has lost how experts are chosen is refused by name", async () => {
    const lost = at("lost");
    cpSync(at("relu"), lost, { recursive: true });
    const { router_type, ...raw } = JSON.parse(readFileSync(join(lost, "config.json"), "utf8"));
    expect(router_type).toBe("relu");
    writeFileSync(join(lost, "config.json"), JSON.stringify(raw));
    const { code, stderr } = await rarefy(["eval", lost, "--text", text, "--quiet"]);
    expect(stderr).toContain("origin.training.router");
    expect(stderr).toContain('the routing "relu"');
    expect(code).toBe(1);
  });

  test("missing experts are named", async () => {
    cpSync(at("softmax"), at("more"), { recursive: true });
    const raw = JSON.parse(readFileSync(at("more/config.json"), "utf8"));
    writeFileSync(at("more/config.json"), JSON.stringify({ ...raw, num_local_experts: 5 }));
    await withModel(at("more"), async (checkpoint) => {
      const error = await trainableConfig(checkpoint).catch((caught) => caught);
      expect(error.problems).toContainEqual(expect.stringMatching(/gate.weight is \[4, 32\]; expected \[5, 32\]/));
      expect(error.problems).toContainEqual(expect.stringMatching(/experts.4.w1.weight \[64, 32\] is missing/));
    });
  });
});

test("Q-Sparse is trained with and said in the record; with all inputs it is the dense model", async () => {
  const dense = at("dense");
  smallConfig(at("llama"));
  const args = ["train", at("llama"), ...small, "--rate", "0.01", "--steps", "12"];
  await rarefyJson([...args, "-o", dense]);
  await rarefyJson([...args, "--input-density", "1", "-o", at("all")]);
  const half = await rarefyJson([...args, "--input-density", "0.5", "-o", at("half")]);
  const weights = (name: string) => readFileSync(join(at(name), "model.safetensors"));
  expect(weights("all").equals(weights("dense"))).toBe(true);
  expect(weights("half").equals(weights("dense"))).toBe(false);
  expect(half.perplexityAfter).toBeLessThan(0.9 * half.perplexityBefore);
  expect(JSON.parse(readFileSync(join(at("half"), "rarefy.json"), "utf8")).origin.training.inputDensity).toBe(0.5);
});

test.each<[string, string[], RegExp]>([
  ["a router without experts", ["train", "models/tiny-6m", "--router", "relu"], /llama model has no experts/],
  [
    "an unknown router",
    ["train", "models/tiny-6m", "--router", "random"],
    /Allowed choices are own, softmax, bias, relu/,
  ],
  [
    "an option of another router",
    ["train", config, "--router", "bias", "--router-option", "factor=2"],
    /routing bias: .*factor/,
  ],
  ["an input density above 1", ["train", config, "--input-density", "1.5"], /at most 1/],
])("%s is one clear line", async (_name, args, message) => {
  const { code, stderr } = await rarefy([...args, "--text", text, "-o", at("x"), "--quiet"]);
  expect(stderr).toMatch(message);
  expect(code).toBe(2);
});

test("a model without experts has no mixture, and a wrong routing is refused", () => {
  expect(trainedMixture({ blocks: [] }, "softmax", {}, 8)).toBeUndefined();
  const raw = { ...JSON.parse(readFileSync(join(config, "config.json"), "utf8")), ...mixtral };
  const spec = readModelSpec(raw, "config.json");
  expect(() => trainedMixture(spec, "constructor", {}, 8)).toThrow(/there is no routing constructor/);
  expect(trainedMixture(spec, "softmax", {}, 8)!.router).toEqual({ routing: "softmax", balance: 0.02, zLoss: 0 });
  expect(trainedMixture(spec, "bias", {}, 8)!.tensors.get(biasName)).toHaveLength(4);
});

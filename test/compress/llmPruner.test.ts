import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { linearsOf, readModelSpec } from "../../src/arch/index.js";
import { gradientStatistics, InputStatistics, pruneMethods } from "../../src/compress/index.js";
import { chooseUnits } from "../../src/compress/internal.js";
import { type Checkpoint, openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { describeDecoder } from "../../src/model/index.js";
import { loadBlock } from "../../src/pipeline/compress/block.js";
import { coupledMatrices } from "../../src/pipeline/compress/stages/cutUnits.js";
import { scoresOfUnits } from "../../src/pipeline/compress/stages/pruneUnits.js";
import type { BlockGradients, GradientSource } from "../../src/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../../src/text/index.js";
import { gradientSource } from "../../src/train/index.js";
import { path } from "../golden/golden.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { compress, logits, relativeDifference } from "./support.js";

const golden = JSON.parse(readFileSync(path("reference2.json"), "utf8")).llm_pruner;
const names = {
  param_first: "first",
  param_second: "second",
  param_mix: "mixed",
  vectorize: "vector",
  l1: "l1",
  l2: "l2",
};

describe("tiny-6m, 10 windows of 64 tokens", () => {
  let checkpoint: Checkpoint;
  const gradients = new Map<number, BlockGradients["values"]>();
  beforeAll(async () => {
    const files = await directoryFiles(path("../../models/tiny-6m"));
    checkpoint = await openCheckpoint(files);
    const text = readFileSync(path("../../models/text/calib.txt"), "utf8").slice(0, 8000);
    const { tokens } = await tokenizeText(await loadTokenizer(files), text, { maxTokens: 640 });
    const windows = { tokens: tokens.slice(0, 640), window: 64 };
    const spec = readModelSpec(checkpoint.config, "config.json");
    const blocks = gradientSource().blockGradients(checkpoint, spec, windows, gradientStatistics);
    for await (const { layer, values } of blocks) gradients.set(layer, values);
  }, 120_000);

  test.each(Object.entries(names))(
    "%s removes the units that an independent implementation removes",
    async (theirs, importance) => {
      const expected = golden.importances[theirs];
      const { method } = await pruneMethods["llm-pruner"]();
      const options = method.options.parse({ importance });
      const config = (await describeDecoder(checkpoint)).config;
      const scores = async (layer: number, kind: "neurons" | "heads") => {
        const block = await loadBlock(checkpoint, config, layer);
        const [coupled] = coupledMatrices(block, kind);
        return scoresOfUnits(
          method,
          coupled,
          (matrix) =>
            new InputStatistics(
              matrix.cols,
              0,
              Object.fromEntries(Object.entries(gradients.get(layer)!).map(([id, of]) => [id, of.get(matrix.key)])),
            ),
          options,
        );
      };
      const removed = (all: Float32Array, share: number) => {
        const kept = new Set(chooseUnits(all, share));
        return Array.from(all.keys()).filter((unit) => !kept.has(unit));
      };
      const neurons = await scores(2, "neurons");
      for (const [unit, score] of [...expected.block2_lowest5_scores, ...expected.block2_highest5]) {
        expect(neurons[unit] / score, String(unit)).toBeCloseTo(1, 2);
      }
      expect(removed(neurons, 141 / 704)).toEqual(expected.block2_neurons_removed);
      const heads = [];
      for (const layer of [1, 2, 3, 4]) heads.push(...removed(await scores(layer, "heads"), 1 / 4));
      expect(heads).toEqual(expected["kv_heads_removed_per_block_1.."]);
    },
  );
});

test.each(["llama", "gpt2", "gpt_neox", "phi3", "opt"])(
  "%s: what is removed and what is masked give the same logits",
  async (name) => {
    const checkpoint = await MemoryCheckpoint.golden(name);
    const own = gradientSource();
    let asked: readonly string[] = [];
    const gradients: GradientSource = {
      ...gradientSource(),
      arithmetic: own.arithmetic,
      blockGradients: (model, spec, windows, wanted, job) => {
        asked = wanted;
        return own.blockGradients(model, spec, windows, wanted, job);
      },
    };
    const cut = async (shrink: boolean) =>
      (
        await compress(checkpoint, {
          gradients,
          store: "dense",
          stages: (["heads", "neurons"] as const).map((type) => ({
            type: "prune" as const,
            method: "llm-pruner",
            options: { importance: "mixed" },
            pattern: { type, sparsity: 0.5 },
            multipleOf: 4,
            shrink,
          })),
        })
      ).opened;
    const [smaller, masked] = [await cut(true), await cut(false)];
    expect(asked).toEqual(["gradients", "squaredGradients"]);
    const widths = ({ config, artifact }: Checkpoint) =>
      linearsOf(readModelSpec(config, "config.json", undefined, artifact!.blocks).blocks[0]).map(({ rows }) => rows);
    expect(widths(smaller)).not.toEqual(widths(masked));
    expect(relativeDifference(await logits(smaller), await logits(masked))).toBeLessThan(1e-5);
  },
);

test.each(["tensor", "global"] as const)("a block that is ignored keeps its units, scope %s", async (scope) => {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  const { opened } = await compress(checkpoint, {
    gradients: gradientSource(),
    stages: [
      {
        type: "prune",
        method: "llm-pruner",
        pattern: { type: "neurons", sparsity: 0.5, scope },
        shrink: false,
        ignore: ["**.layers.0.mlp.**"],
      },
    ],
  });
  const zeros = await Promise.all(
    [0, 1].map(
      async (layer) =>
        (await opened.readFloat32(`model.layers.${layer}.mlp.gate_proj.weight`)).filter((w) => w === 0).length,
    ),
  );
  expect(zeros[0]).toBe(0);
  expect(zeros[1]).toBeGreaterThan(0);
});

describe("units that go in steps", () => {
  const gradients = gradientSource();
  const types = ["heads", "neurons"] as const;
  const stages = (sparsity: number, steps?: number, scope: "tensor" | "global" = "tensor") =>
    types.map((type) => ({
      type: "prune" as const,
      method: "llm-pruner",
      options: { importance: "second" },
      pattern: { type, sparsity, scope },
      multipleOf: 4,
      shrink: false,
      ...(steps && { steps }),
    }));

  test("are those of one job after the other, each of the model that the one before has left", async () => {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    const { opened: inSteps } = await compress(checkpoint, { gradients, store: "dense", stages: stages(0.5, 2) });
    const once = await compress(checkpoint, { gradients, store: "dense", stages: stages(0.5) });
    const half = await compress(checkpoint, { gradients, store: "dense", stages: stages(0.25) });
    const twice = await compress(half.opened, { gradients, store: "dense", stages: stages(0.5) });
    const maps = readModelSpec(checkpoint.config, "config.json").blocks.flatMap((block) => linearsOf(block));
    let differs = false;
    for (const { weight } of maps) {
      const of = (model: Checkpoint) => model.readFloat32(weight.tensor);
      expect(await of(inSteps), weight.tensor).toEqual(await of(twice.opened));
      if (String(await of(inSteps)) !== String(await of(once.opened))) differs = true;
    }
    expect(differs).toBe(true);
  });
});

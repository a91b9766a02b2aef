import { beforeAll, describe, expect, test } from "vitest";
import {
  lowRankMethods,
  parseRecipe,
  pruneMethods,
  quantizeMethods,
  type RecipeInput,
  scaleMethods,
  tensorMethods,
} from "../../src/compress/index.js";
import { compressionOf, parseArtifact } from "../../src/io/index.js";
import { gradientSource } from "../../src/train/index.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { calibration, compress, morphemicTokens } from "./support.js";

type StageInput = RecipeInput["stages"][number];

const mlp = ["**.up_proj.weight", "**.down_proj.weight"];

/** Of every method of every table a stage that this small model can have. */
const stages: Readonly<Record<string, StageInput>> = {
  ...stagesOf("prune", pruneMethods, (method) => ({
    ...{ type: "prune", method, multipleOf: 4 },
    pattern: method === "llm-pruner" ? { type: "neurons", sparsity: 0.5 } : "2:4",
  })),
  ...stagesOf("quantize", quantizeMethods, (method) => ({ type: "quantize", method })),
  ...stagesOf("scale", scaleMethods, (method) => ({ type: "scale", method, targets: mlp })),
  ...stagesOf("lowRank", lowRankMethods, (method) => ({ type: "lowRank", method, rank: 24, targets: mlp })),
  ...stagesOf("tensors", of("blocks"), (method) => ({ type: "tensors", method, keepRatio: 0.5 })),
  ...stagesOf("embedding", of("embedding"), (method) => ({ type: "embedding", method, keepRatio: 0.6 })),
};

function stagesOf(type: string, methods: object, stage: (method: string) => object): Record<string, StageInput> {
  return Object.fromEntries(Object.keys(methods).map((method) => [`${type} ${method}`, stage(method) as StageInput]));
}

function of(what: "blocks" | "embedding"): object {
  return Object.fromEntries(Object.entries(tensorMethods).filter(([, method]) => method.of.includes(what)));
}

/** Fewer tokens than inputs: the grams are singular, and what a method changes may be seen by none of them. */
const few = { windows: 1, window: 8 };

describe.each(["reference", "wasm"])("records of what methods did, calibrated with 8 tokens on %s", (backend) => {
  let checkpoint: MemoryCheckpoint;
  beforeAll(async () => {
    checkpoint = Object.assign(await MemoryCheckpoint.golden("llama"), { files: morphemicTokens() });
  });

  test.each(Object.entries(stages))("%s: finite numbers, which are read back as they were", async (_, stage) => {
    const { artifact } = await compress(checkpoint, {
      ...{ stages: [stage], backend, gradients: gradientSource() },
      recipe: parseRecipe({ version: 1, calibration: few, stages: [stage] }, "test"),
      calibration: { ...calibration, tokens: calibration.tokens.subarray(0, 8) },
    });
    expect(parseArtifact(JSON.parse(JSON.stringify(artifact)), "again")).toEqual(artifact);
    const { layers, embedding } = compressionOf(artifact)!;
    const matrices = [...layers.flatMap((layer) => Object.values(layer.matrices)), ...(embedding ? [embedding] : [])];
    for (const { relativeError } of matrices) {
      // Factors of a singular gram must not blow up where no token looked.
      if (relativeError !== undefined) expect(relativeError).toBeLessThan(2);
    }
  });
});

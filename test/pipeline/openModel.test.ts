import { readFileSync } from "node:fs";
import { beforeAll, expect, test } from "vitest";
import {
  type Artifact,
  artifactFileName,
  type ModelFiles,
  memorySource,
  openCheckpoint,
  serializeArtifact,
} from "../../src/io/index.js";
import { bundledModel, directoryFiles, resolveModel } from "../../src/io/index.node.js";
import { describeDecoder, packedMatrixBytes } from "../../src/model/index.js";
import { calibrateActivationSparsity, expectedBytesSaved, openModel, toThresholds } from "../../src/pipeline/index.js";
import { collect, generate } from "../../src/runtime/index.js";
import { loadTokenizer, type TokenizedText, tokenizeText } from "../../src/text/index.js";

const plain = directoryFiles("models/tiny-6m");
let text: TokenizedText;
beforeAll(async () => {
  const tokenizer = await loadTokenizer(plain);
  text = await tokenizeText(tokenizer, readFileSync("models/text/calib.txt", "utf8").slice(0, 20_000));
});

/** tiny-6m with a rarefy.json beside its weights. */
function withArtifact(artifact: Artifact): ModelFiles {
  const bytes = serializeArtifact(artifact);
  return {
    ...plain,
    open: async (name) => (name === artifactFileName ? memorySource(name, bytes) : plain.open(name)),
  };
}

async function calibrated(method: "teal" | "cats", sparsity: number): Promise<Artifact> {
  using opened = await openModel(plain, { weights: "q8", threads: 1 });
  const options = { sparsities: [sparsity], method, window: 128, calibrationWindows: 8 };
  const { records } = await calibrateActivationSparsity(opened.model, text, options);
  return { rarefy: 2, weights: "q8", activationSparsity: { ...records[0], prefill: "secondHalf" } };
}

test("an ordinary checkpoint is dense and bf16", async () => {
  using opened = await openModel(plain, { threads: 1 });
  expect(opened.artifact).toBeUndefined();
  expect(opened.prefill).toBe("dense");
  expect(opened.model.thresholds).toBeUndefined();
  expect(opened.model.weights).toBe("bf16");
});

test.each([
  ["teal", 0.4],
  ["cats", 0.7],
] as const)("%s at %d runs as rarefy.json says and reads what was expected", async (method, sparsity) => {
  const artifact = await calibrated(method, sparsity);
  using opened = await openModel(withArtifact(artifact), { threads: 1 });
  const { model } = opened;
  expect(model.weights).toBe("q8");
  expect(model.thresholds).toEqual(toThresholds(artifact.activationSparsity!));
  expect(opened.prefill).toBe("secondHalf");

  const checkpoint = await openCheckpoint(plain);
  const { config } = await describeDecoder(checkpoint);
  const dense = packedMatrixBytes(checkpoint, config.spec, "q8").perToken;
  await checkpoint.close();
  const saved = expectedBytesSaved(config.spec, "q8", artifact.activationSparsity!);
  // Dense prefill, so that its last pass reads every column; then the steps alone count.
  const steps = generate(model, text.tokens.subarray(0, 32), { maxTokens: 33, stopIds: [] });
  await steps.next();
  model.backend.takeCounters();
  await collect(steps);
  const read = model.backend.takeCounters().weightBytesRead / 32;
  expect(saved).toBeGreaterThan(0.05 * dense);
  expect((dense - read) / saved).toBeGreaterThan(0.85);
  expect((dense - read) / saved).toBeLessThan(1.15);
});

test("--weights wins over rarefy.json", async () => {
  using opened = await openModel(withArtifact({ rarefy: 2, weights: "q8" }), { weights: "q4", threads: 1 });
  expect(opened.model.weights).toBe("q4");
});

test("thresholds of another model are refused before weights are read", async () => {
  const artifact = await calibrated("teal", 0.4);
  const sparsity = { ...artifact.activationSparsity!, layers: artifact.activationSparsity!.layers.slice(1) };
  const events: unknown[] = [];
  const opening = openModel(withArtifact({ ...artifact, activationSparsity: sparsity }), {
    onProgress: (event) => events.push(event),
  });
  await expect(opening).rejects.toThrow(/rarefy\.json: activationSparsity\.layers: 5 layers; expected 6/);
  expect(events).toEqual([]);
});

test("wrong calls are answered with what is expected", async () => {
  await expect(openModel("models/tiny-6m" as never)).rejects.toThrow(
    /files is "models\/tiny-6m"; expected .*resolveModel/,
  );
  const files = directoryFiles(bundledModel("tiny-6m"));
  await expect(openModel(files, { weights: "q5" as never })).rejects.toThrow(
    /weights is "q5"; expected one of f32, bf16/,
  );
  await expect(openModel(files, { weight: "q8" } as never)).rejects.toThrow(/no option "weight"/);
  expect((await resolveModel("tiny-6m")).directory).toBe(bundledModel("tiny-6m"));
  expect(() => bundledModel("tiny-7m" as never)).toThrow(/tiny-7m does not come with rarefy/);
});

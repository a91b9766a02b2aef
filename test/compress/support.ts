import { isEncoder } from "../../src/arch/index.js";
import { parseRecipe, type RecipeInput } from "../../src/compress/index.js";
import { Random } from "../../src/core/index.js";
import { type Checkpoint, memoryFiles, openCheckpoint } from "../../src/io/index.js";
import { openBackend } from "../../src/kernels/index.js";
import { loadModel } from "../../src/model/index.js";
import { type CompressOptions, memoryWorkspace, planCompression, runCompression } from "../../src/pipeline/index.js";
import { classify } from "../../src/runtime/index.js";

export const window = 16;
export const windows = 3;

/** Of the golden checkpoints' vocabulary. */
export function randomTokens(seed: number, count = window * windows): Uint32Array {
  const random = new Random(seed);
  return Uint32Array.from({ length: count }, () => random.integer(256));
}

export const calibration = { tokens: randomTokens(9), sha256: "ab".repeat(32) };

export type JobInput = { stages: RecipeInput["stages"] } & Partial<CompressOptions>;

export function jobOptions({ stages, ...options }: JobInput): CompressOptions {
  return {
    recipe: parseRecipe({ version: 1, calibration: { windows, window }, stages }, "test"),
    calibration,
    backend: "reference",
    version: "test",
    ...options,
  };
}

/** Runs a job in memory. @returns its files and the result, opened */
export async function compress(checkpoint: Checkpoint, input: JobInput, files = new Map<string, Uint8Array>()) {
  const options = jobOptions(input);
  const plan = await planCompression(checkpoint, options);
  const result = await runCompression(checkpoint, plan, { workspace: memoryWorkspace(files), companions: [] }, options);
  return { ...result, files, opened: await openCheckpoint(memoryFiles("result", files)) };
}

/** Files with a tokenizer of 256 tokens that are made of 32 stems and 8 endings. */
export function morphemicTokens(): ReturnType<typeof memoryFiles> {
  const endings = ["ing", "ed", "er", "s", "ly", "ness", "less", "ful"];
  const tokens = Array.from({ length: 256 }, (_, id) => `s${(id >> 3).toString(36)}${endings[id % 8]}`);
  const definition = {
    ...{ normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, added_tokens: [] },
    model: { type: "BPE", vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges: [] },
  };
  return memoryFiles("tokenizer", new Map([["tokenizer.json", Buffer.from(JSON.stringify(definition))]]));
}

/** Logits f32 [tokens, vocabulary] on the reference backend; of an encoder [labels]. */
export async function logits(checkpoint: Checkpoint, tokens = randomTokens(4, 12)): Promise<Float32Array> {
  using backend = await openBackend("reference");
  using model = await loadModel(checkpoint, backend, { weights: "f32" });
  if (isEncoder(model.config.spec)) return (await classify(model, tokens)).logits;
  using cache = model.createCache(tokens.length);
  return backend.read((await model.forward(tokens, cache, 0, { logits: "all" }))!);
}

/** Largest difference over the largest value. */
export function relativeDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let size = 0;
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    size = Math.max(size, Math.abs(expected[i]));
    worst = Math.max(worst, Math.abs(actual[i] - expected[i]));
  }
  return actual.length === expected.length ? worst / size : Number.POSITIVE_INFINITY;
}

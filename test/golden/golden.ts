import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import type { Backend } from "../../src/kernels/index.js";
import { type ActivationThresholds, type ForwardOptions, loadModel, type Model } from "../../src/model/index.js";
import type { WeightFormatId } from "../../src/pack/index.js";

/** What an independent implementation (Hugging Face transformers, float32) computed for one checkpoint. */
export interface Golden {
  ids: Uint32Array;
  /** Negative log-likelihood of ids[1…], natural logarithm. */
  nll: readonly number[];
  /** Logits after the last id, by token id; all of them or the largest. */
  lastLogits: ReadonlyMap<number, number>;
  /** Ids that greedy decoding continues, and what follows them. */
  greedyPrompt: Uint32Array;
  greedy: readonly number[];
}

export const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
const json = (relative: string) => JSON.parse(readFileSync(path(relative), "utf8"));

export const architectureNames = ["llama", "llama3-rope", "mistral", "mixtral", "qwen2", "qwen3", "smollm3", "phi3", "gemma2",
  "gemma3", "gpt2", "opt", "gpt_neox", "olmoe", "qwen3_moe", "gpt_oss", "deepseek_v3", "terraformer",
  "terraformer-convolutional"] as const;

/** Those of models that read a text as a whole. */
export const encoderNames = ["bert"] as const;

/** Tiny random float32 checkpoints, one for each architecture. */
export function architectureGolden(name: string): Golden {
  const golden = json(`arch/${name}/golden.json`);
  const ids = Uint32Array.from(golden.input_ids);
  return {
    ids,
    nll: golden.nll,
    lastLogits: new Map(golden.last_logits.entries()),
    greedyPrompt: ids,
    greedy: golden.greedy_16,
  };
}

/** The trained model that ships with the package. */
export function tiny6mGolden(): Golden {
  const { golden } = json("reference.json").models["tiny-6m"];
  const ids = Uint32Array.from(golden.ids);
  return {
    ids,
    nll: golden.nll,
    lastLogits: new Map(golden.last_top10_ids.map((id: number, i: number) => [id, golden.last_top10_logits[i]])),
    greedyPrompt: ids.slice(0, 16),
    greedy: golden.greedy_from_first_16,
  };
}

export async function load(
  directory: string,
  backend: Backend,
  weights: WeightFormatId,
  thresholds?: ActivationThresholds,
): Promise<Model> {
  const checkpoint = await openCheckpoint(directoryFiles(directory));
  try {
    return await loadModel(checkpoint, backend, { weights, thresholds });
  } finally {
    await checkpoint.close();
  }
}

/** Logits f32 of every position, one array each, from passes over chunks of the given size. */
export async function logitsOf(
  model: Model,
  ids: Uint32Array,
  chunk = ids.length,
  options: ForwardOptions = {},
): Promise<Float32Array[]> {
  using cache = model.createCache(ids.length);
  const rows: Float32Array[] = [];
  for (let start = 0; start < ids.length; start += chunk) {
    const part = ids.subarray(start, start + chunk);
    const logits = (await model.forward(part, cache, start, { ...options, logits: "all" }))!;
    const values = await model.backend.read(logits);
    for (let r = 0; r < logits.rows; r++) rows.push(values.slice(r * logits.cols, (r + 1) * logits.cols));
    model.backend.release(logits);
  }
  return rows;
}

/** −ln softmax(logits)[id], f64. */
export function negativeLogLikelihood(logits: Float32Array, id: number): number {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  let total = 0;
  for (const logit of logits) total += Math.exp(logit - largest);
  return Math.log(total) + largest - logits[id];
}

/** `count` tokens by argmax, one pass for the prompt and one for every token. */
export async function greedyContinuation(model: Model, prompt: Uint32Array, count: number): Promise<number[]> {
  using cache = model.createCache(prompt.length + count);
  const generated: number[] = [];
  let tokens = prompt;
  let start = 0;
  while (generated.length < count) {
    const logits = (await model.forward(tokens, cache, start))!;
    const [{ ids }] = await model.backend.topK(logits, 1);
    model.backend.release(logits);
    generated.push(ids[0]);
    start += tokens.length;
    tokens = ids;
  }
  return generated;
}

import { memoryFiles, openCheckpoint } from "../../../src/io/index.js";
import { openBackend } from "../../../src/kernels/index.js";
import { loadModel, type Model } from "../../../src/model/index.js";
import type { WeightFormatId } from "../../../src/pack/index.js";

export interface GenerateRequest {
  backend: string;
  /** Default: what the page may use. */
  threads?: number;
  weights: WeightFormatId;
  /** Directory of the model on this origin. */
  model: string;
  prompt: number[];
  count: number;
}

export interface GenerateResult {
  tokens: number[];
  threads: number;
  isolated: boolean;
}

declare global {
  var generate: (request: GenerateRequest) => Promise<GenerateResult>;
}

globalThis.generate = async ({ backend: id, threads, weights, model: url, prompt, count }) => {
  using backend = await openBackend(id, threads === undefined ? {} : { threads });
  const names = ["config.json", "generation_config.json", "model.safetensors"];
  const files = await Promise.all(names.map(async (name) => [name, await bytesOf(`${url}/${name}`)] as const));
  const checkpoint = await openCheckpoint(memoryFiles(url, new Map(files)));
  const model = await loadModel(checkpoint, backend, { weights });
  const tokens = await greedy(model, Uint32Array.from(prompt), count);
  return { tokens, threads: backend.info.threads, isolated: crossOriginIsolated };
};

async function bytesOf(url: string): Promise<Uint8Array> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function greedy(model: Model, prompt: Uint32Array, count: number): Promise<number[]> {
  using cache = model.createCache(prompt.length + count);
  const generated: number[] = [];
  for (let tokens = prompt, start = 0; generated.length < count; ) {
    const logits = (await model.forward(tokens, cache, start))!;
    const [{ ids }] = await model.backend.topK(logits, 1);
    model.backend.release(logits);
    generated.push(ids[0]);
    start += tokens.length;
    tokens = ids;
  }
  return generated;
}

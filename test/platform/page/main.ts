import { openCheckpoint, urlFiles } from "../../../src/io/index.js";
import { openBackend } from "../../../src/kernels/index.js";
import { loadModel, type Model, type OffloadPlan } from "../../../src/model/index.js";
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

export interface OffloadRequest extends Pick<GenerateRequest, "threads" | "model" | "prompt" | "count"> {
  residentBytes: number;
}

export interface OffloadResult {
  tokens: number[];
  plan: OffloadPlan;
  bytesRead: number;
}

declare global {
  var offload: (request: OffloadRequest) => Promise<OffloadResult>;
  var generate: (request: GenerateRequest) => Promise<GenerateResult>;
}

globalThis.generate = async ({ backend: id, threads, weights, model: url, prompt, count }) => {
  using backend = await openBackend(id, threads === undefined ? {} : { threads });
  const checkpoint = await openCheckpoint(urlFiles(new URL(url, location.href).href));
  const model = await loadModel(checkpoint, backend, { weights });
  const tokens = await greedy(model, Uint32Array.from(prompt), count);
  return { tokens, threads: backend.info.threads, isolated: crossOriginIsolated };
};

globalThis.offload = (request) => {
  const worker = new Worker(new URL("./offloadWorker.ts", import.meta.url), { type: "module" });
  return new Promise<OffloadResult>((resolve, reject) => {
    worker.onmessage = ({ data }) => ("problem" in data ? reject(new Error(data.problem)) : resolve(data));
    worker.onerror = ({ message }) => reject(new Error(message));
    worker.postMessage(request);
  }).finally(() => worker.terminate());
};

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

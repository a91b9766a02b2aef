// Measures rarefy, from the built package in dist/. Runs in Node and, bundled, in a page.
//
// As with the peers: prefill is the time of one dense pass over the prompt until its greedy choice is known; decode the time
// of each of the next tokens, one pass and one greedy choice.

import { openCheckpoint } from "../dist/io/index.js";
import { openBackend } from "../dist/kernels/index.js";
import { createBackend } from "../dist/kernels/wasm/index.js";
import { loadModel } from "../dist/model/index.js";
import { calibrateActivationSparsity, toThresholds } from "../dist/pipeline/index.js";
import { promptIds } from "./prompt.mjs";
import { pruned } from "./pruned.mjs";
import { Stopwatch, undisturbed } from "./stopwatch.mjs";

/**
 * Loads a model once and measures it dense and at the given activation sparsities (TEAL, uniform).
 * @param files the model's files, as rarefy/io opens them
 * @param native of the backend "wasm": false leaves native kernels out, a name asks for a set of them
 * @param structure "2:4" keeps the two largest of every four weights of the blocks' matrices; "dense" all
 * @returns { description, threads, variants: [{ sparsity, measure }], dispose }
 */
export async function openOurs(
  files,
  { backend: id = "wasm", native, weights, structure = "dense", threads, sparsities = [] },
) {
  const backend = id === "wasm" ? await createBackend({ threads, native }) : await openBackend(id, { threads });
  const checkpoint = await openCheckpoint(files);
  const model = await loadModel(pruned(checkpoint, { structure }), backend, { weights, structure });
  await checkpoint.close();

  const variants = [{ sparsity: 0, thresholds: undefined }];
  if (sparsities.length > 0) {
    const windows = { window: 128, calibrationWindows: 2 };
    // A name for the made-up text; nothing is stored.
    const text = { tokens: Uint32Array.from(promptIds(256, model.config.vocabSize)), sha256: "0".repeat(64) };
    const { records } = await calibrateActivationSparsity(model, text, { sparsities, ...windows });
    for (const [i, record] of records.entries())
      variants.push({ sparsity: sparsities[i], thresholds: toThresholds(record) });
  }

  async function step(ids, cache, start, thresholds) {
    // Prefill is dense, as in generation; single tokens are sparse where there are thresholds.
    const sparseFrom = ids.length > 1 ? start + ids.length : start;
    const logits = await model.forward(ids, cache, start, { logits: "last", sparseFrom, thresholds });
    const [top] = await backend.topK(logits, 1);
    backend.release(logits);
    return top.ids;
  }

  async function measure(thresholds, { prompt, tokens }) {
    const cache = model.createCache(prompt + tokens);
    const ids = Uint32Array.from(promptIds(prompt, model.config.vocabSize));
    const watch = new Stopwatch();
    let next = await step(ids, cache, 0, thresholds);
    const prefill = watch.lap();
    backend.takeCounters();
    const samples = [];
    for (let i = 0; i < tokens; i++) {
      next = await step(next, cache, prompt + i, thresholds);
      samples.push(watch.lap());
    }
    const { weightBytesRead, inputs, inputsSkipped } = backend.takeCounters();
    cache[Symbol.dispose]();
    return {
      prefill,
      tokens: samples,
      bytesPerToken: weightBytesRead / tokens,
      inputsSkipped: inputs === 0 ? 0 : inputsSkipped / inputs,
    };
  }

  return {
    description: backend.info.description,
    threads: backend.info.threads,
    variants: variants.map(({ sparsity, thresholds }) => ({
      sparsity,
      measure: (job) => undisturbed(() => measure(thresholds, job), job),
    })),
    dispose() {
      model[Symbol.dispose]();
      backend[Symbol.dispose]();
    },
  };
}

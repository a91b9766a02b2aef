// Measures a GGUF file with wllama (llama.cpp compiled to WebAssembly) in headless Chromium, on the CPU.
//
//   node peer-wllama.mjs FILE.gguf [--threads 2] [--prompt 128] [--tokens 16] [--rounds 3]
//
// wllama takes text, not token ids: the model must come from random-model.mjs, whose vocabulary makes one token of every
// byte typed, so a prompt of n characters is n tokens; the engine's own count is checked against that in every round. Its prompt
// cache is off, the choice is greedy and end-of-text is ignored. Speeds are the engine's own timings, without the time between
// page and worker: prefill is prompt_n / prompt_ms, decode predicted_n / predicted_ms less the first token, which comes from
// the prompt's logits.

import { basename, dirname, resolve } from "node:path";
import { readOptions } from "../scripts/options.mjs";
import { findChromium, launchChromium, serve } from "../test/platform/browser.mjs";
import { isMain } from "./machine.mjs";

/** A cross-origin isolated origin with the bench, the directory of a model, and what else is asked for. */
export const serveBench = (modelDirectory, mounts = {}) =>
  serve({ "/bench/": import.meta.dirname, "/model/": modelDirectory, ...mounts }, { isolated: true });

/** @returns a peer as in peer-llamacpp.mjs, whose engine lives in a page of its own. */
export async function openWllama(path, { threads, browser, origin, contextSize = 512 }) {
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(`wllama page: ${error}`));
  await page.goto(`${origin}/bench/page/wllama.html`);
  const open = { url: `/model/${basename(path)}`, threads, contextSize };
  const actual = await page.evaluate(async ({ url, threads, contextSize }) => {
    const { Wllama } = await import("/bench/node_modules/@wllama/wllama/esm/index.js");
    const quiet = { debug() {}, log() {}, warn() {}, error: console.error };
    const engine = new Wllama(
      { default: "/bench/node_modules/@wllama/wllama/esm/wasm/wllama.wasm" },
      { logger: quiet },
    );
    const blob = await (await fetch(url)).blob();
    await engine.loadModel([blob], {
      n_gpu_layers: 0,
      n_threads: threads,
      n_ctx: contextSize,
      n_batch: contextSize,
      n_ubatch: contextSize,
      n_parallel: 1,
      warmup: false,
    });
    globalThis.engine = engine;
    return engine.getNumThreads();
  }, open);

  return {
    name: "wllama",
    threads: actual,
    async measure({ prompt, tokens }) {
      await page.bringToFront();
      const timings = await page.evaluate(
        async ({ prompt, tokens }) => {
          const text = Array.from({ length: prompt }, (_, i) => String.fromCharCode(97 + ((i * 7) % 26))).join("");
          const result = await globalThis.engine.createCompletion({
            prompt: text,
            max_tokens: tokens + 1,
            temperature: 0,
            ignore_eos: true,
            cache_prompt: false,
          });
          return result.timings;
        },
        { prompt, tokens },
      );
      if (timings.prompt_n !== prompt || timings.predicted_n !== tokens + 1) {
        throw new Error(
          `asked for ${prompt} + ${tokens + 1} tokens, wllama ran ${timings.prompt_n} + ${timings.predicted_n}`,
        );
      }
      return {
        prefillTokensPerSecond: (prompt * 1000) / timings.prompt_ms,
        decodeTokensPerSecond: (tokens * 1000) / timings.predicted_ms,
      };
    },
    async dispose() {
      await page.evaluate(() => globalThis.engine.exit());
      await page.close();
    },
  };
}

export async function openBrowser() {
  const { path, reason } = findChromium();
  if (!path) throw new Error(reason);
  return launchChromium(path);
}

if (isMain(import.meta)) {
  const { values, positionals } = readOptions({
    allowPositionals: true,
    options: {
      threads: { type: "string", default: "2" },
      prompt: { type: "string", default: "128" },
      tokens: { type: "string", default: "16" },
      rounds: { type: "string", default: "3" },
    },
  });
  const [threads, prompt, tokens, rounds] = [values.threads, values.prompt, values.tokens, values.rounds].map(Number);
  const file = resolve(positionals[0]);
  const server = await serveBench(dirname(file));
  const browser = await openBrowser();
  const peer = await openWllama(file, { threads, browser, origin: server.origin });
  const results = [];
  for (let round = -1; round < rounds; round++) {
    const result = await peer.measure({ prompt, tokens });
    if (round >= 0) results.push(result);
  }
  console.log(
    JSON.stringify(
      { peer: peer.name, file: positionals[0], threads: peer.threads, prompt, tokens, rounds: results },
      null,
      2,
    ),
  );
  await peer.dispose();
  await browser.close();
  await server.close();
}

// Measures a GGUF file with node-llama-cpp, on the CPU or with its Vulkan build on a GPU.
//
//   node peer-llamacpp.mjs FILE.gguf [--gpu vulkan] [--peer-set haswell] [--threads 2] [--prompt 128] [--tokens 64] [--rounds 3]
//
// --peer-set: on the CPU, which of its kernels it has, instead of the best that the processor can run (peer-sets.mjs).
// Only the public API. One sequence, its history cleared before every round:
//   prefill  the time from calling `evaluate` with `prompt` known token ids until its first token, that is: all of them in one
//            batch (batchSize ≥ prompt), the logits of the last, one greedy choice;
//   decode   the time of the next `tokens` tokens, each of them one pass over the weights with logits and a greedy choice.
// End-of-text tokens are generated through, so that random weights cannot end a round early. Two rounds are run first and
// thrown away: they page the file in.

import { readOptions } from "../scripts/options.mjs";
import { isMain } from "./machine.mjs";
import { peerModule } from "./peer-sets.mjs";
import { promptIds } from "./prompt.mjs";
import { Stopwatch, undisturbed } from "./stopwatch.mjs";

/** @param set of kernels on the CPU, the best where it is left out
 *  @returns a peer: { name, measure({ prompt, tokens }): { prefillTokensPerSecond, decodeTokensPerSecond }, dispose() } */
export async function openLlamaCpp(path, { threads, contextSize = 512, gpu = false, set }) {
  const { getLlama, LlamaLogLevel } = await import(set ? peerModule(set) : "node-llama-cpp");
  // An error that no binary was found says that the processor cannot run the set.
  // Without `build: "never"` a missing binary would be compiled; with maxThreads 0 `threads` is what is used.
  const llama = await getLlama({ gpu, build: "never", maxThreads: 0, logLevel: LlamaLogLevel.error });
  const model = await llama.loadModel({ modelPath: path, ...(gpu && { gpuLayers: "max" }) });
  const context = await model.createContext({ contextSize, batchSize: contextSize, threads });
  const sequence = context.getSequence();

  const greedy = async (ids, count) => {
    await sequence.clearHistory();
    const watch = new Stopwatch();
    const laps = [];
    const output = [];
    for await (const id of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
      laps.push(watch.lap());
      output.push(id);
      if (output.length === count) break;
    }
    return { laps, output };
  };
  async function once({ prompt, tokens }) {
    const { laps } = await greedy(promptIds(prompt, model.fileInfo.metadata.llama.vocab_size), tokens + 1);
    if (laps.length !== tokens + 1) throw new Error(`asked for ${tokens + 1} tokens, got ${laps.length}`);
    return { prefill: laps[0], tokens: laps.slice(1) };
  }
  return {
    name: "node-llama-cpp",
    // "CPU : SSE3 = 1 | … | AVX2 = 1 | …"
    description: llama.systemInfo,
    gpu: gpu ? await llama.getGpuDeviceNames() : undefined,
    threads: context.currentThreads || context.idealThreads,
    greedy: async (ids, count) => (await greedy(ids, count)).output,
    measure: (job) => undisturbed(() => once(job), job),
    async dispose() {
      await context.dispose();
      await model.dispose();
      await llama.dispose();
    },
  };
}

if (isMain(import.meta)) {
  const { values, positionals } = readOptions({
    allowPositionals: true,
    options: {
      gpu: { type: "string" },
      "peer-set": { type: "string" },
      threads: { type: "string", default: "2" },
      prompt: { type: "string", default: "128" },
      tokens: { type: "string", default: "64" },
      rounds: { type: "string", default: "3" },
    },
  });
  const [threads, prompt, tokens, rounds] = [values.threads, values.prompt, values.tokens, values.rounds].map(Number);
  const peer = await openLlamaCpp(positionals[0], {
    threads,
    gpu: values.gpu,
    set: values["peer-set"],
    contextSize: prompt + tokens + 64,
  });
  const results = [];
  for (let round = -2; round < rounds; round++) {
    const result = await peer.measure({ prompt, tokens });
    if (round >= 0) results.push(result);
  }
  console.log(
    JSON.stringify(
      { peer: peer.name, gpu: peer.gpu, file: positionals[0], threads: peer.threads, prompt, tokens, rounds: results },
      null,
      2,
    ),
  );
  await peer.dispose();
}

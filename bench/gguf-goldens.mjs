// Does llama.cpp open what `rarefy export --format gguf` writes, of every family? The tiny checkpoints of test/golden/arch are exported and
// run by node-llama-cpp; what it says of 24 tokens is held against what Hugging Face transformers says of them, in types that round
// against what rarefy reads from the same file, for nine tokens of ten.
//
//   node gguf-goldens.mjs [NAME…] [--type f32] [--keep DIR]
//
// A checkpoint has no tokenizer: it gets one of bytes, whose tokens are given as numbers. Prints a table; exit code 1 where a file is not
// opened, a token's −log p is off by more than the tolerance or a greedy token differs. Needs the built package (npm run build).

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";
import { families } from "../dist/arch/index.js";
import { openCheckpoint } from "../dist/io/index.js";
import { directoryFiles, directorySinks, resolveModel } from "../dist/io/index.node.js";
import { writeSafetensors } from "../dist/io/safetensorsWriter.js";
import { preTokenizers } from "../dist/io/tokenizer/preTokenizers.js";
import { openModel } from "../dist/pipeline/index.js";
import { collect, embedText, generate, Sequence } from "../dist/runtime/index.js";
import { byteSymbols, specialToken } from "../scripts/byte-level.mjs";
import { readOptions } from "../scripts/options.mjs";
import { logitsAfter, negativeLogLikelihood } from "./llama-nll.mjs";

const { values: options, positionals } = readOptions({
  allowPositionals: true,
  options: { type: { type: "string", default: "f32" }, keep: { type: "string" } },
});
const goldens = fileURLToPath(new URL("../test/golden/arch/", import.meta.url));
const main = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
const work = options.keep ?? mkdtempSync(join(tmpdir(), "rarefy-goldens-"));
mkdirSync(work, { recursive: true });
/** Of −log p of a token, and of a coordinate of a vector of length 1. */
const tolerance = { f32: 2e-3 }[options.type] ?? 5e-2;

const json = (path) => JSON.parse(readFileSync(path, "utf8"));

function byteLevel(vocabSize) {
  const words = Array.from({ length: vocabSize }, (_, id) => `<t${id}>`).fill(undefined, 3, 259);
  for (const [byte, token] of byteSymbols().entries()) words[3 + byte] = token;
  return {
    "tokenizer.json": {
      version: "1.0",
      added_tokens: [1, 2].map((id) => specialToken(words[id], id)),
      normalizer: null,
      pre_tokenizer: preTokenizers[0].rules,
      post_processor: null,
      decoder: { type: "ByteLevel" },
      model: { type: "BPE", vocab: Object.fromEntries(words.map((word, id) => [word, id])), merges: [] },
    },
    "tokenizer_config.json": { bos_token: words[1], eos_token: words[2] },
  };
}

function wordPiece(vocabSize) {
  const named = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
  const words = Array.from({ length: vocabSize }, (_, id) => named[id] ?? (id < 256 ? `w${id}` : `##p${id}`));
  return {
    "tokenizer.json": {
      version: "1.0",
      added_tokens: named.map(specialToken),
      normalizer: {
        type: "BertNormalizer",
        clean_text: true,
        handle_chinese_chars: true,
        strip_accents: null,
        lowercase: true,
      },
      pre_tokenizer: { type: "BertPreTokenizer" },
      post_processor: { type: "BertProcessing", sep: ["[SEP]", 3], cls: ["[CLS]", 2] },
      decoder: { type: "WordPiece", prefix: "##", cleanup: true },
      model: {
        type: "WordPiece",
        unk_token: "[UNK]",
        continuing_subword_prefix: "##",
        max_input_chars_per_word: 100,
        vocab: Object.fromEntries(words.map((word, id) => [word, id])),
      },
    },
    "tokenizer_config.json": Object.fromEntries(
      Object.entries({ unk: 1, cls: 2, sep: 3, mask: 4, pad: 0 }).map(([name, id]) => [`${name}_token`, named[id]]),
    ),
  };
}

/** What files of llama.cpp have otherwise than a golden: the same model in other tensors. */
const changes = {
  // Without what classifies: the model that makes vectors.
  bert: {
    config: { architectures: ["BertModel"] },
    tensor: ({ name, ...tensor }) =>
      name.startsWith("bert.") ? { ...tensor, name: name.slice("bert.".length) } : undefined,
  },
  // As many heads of keys as of queries: each twice.
  olmoe: {
    config: { num_key_value_heads: 4 },
    tensor({ name, shape, values }) {
      if (!/\.(?:[kv]_proj|k_norm)\.weight$/.test(name)) return { name, shape, values };
      const size = values.length / 2;
      const repeated = Float32Array.from({ length: size * 4 }, (_, i) => {
        return values[Math.floor(i / size / 2) * size + (i % size)];
      });
      return { name, shape: [shape[0] * 2, ...shape.slice(1)], values: repeated };
    },
  },
};

/** The golden with a tokenizer. */
async function checkpointOf(name) {
  const from = join(goldens, name);
  const to = join(work, `golden-${name}`);
  rmSync(to, { recursive: true, force: true });
  cpSync(from, to, { recursive: true });
  const { config: changed = {}, tensor: change = (tensor) => tensor } = changes[name] ?? {};
  const config = { ...json(join(from, "config.json")), ...changed };
  writeFileSync(join(to, "config.json"), JSON.stringify(config));
  const isEncoder = families[config.model_type].gguf.encoder === true;
  for (const [file, value] of Object.entries((isEncoder ? wordPiece : byteLevel)(config.vocab_size))) {
    writeFileSync(join(to, file), JSON.stringify(value));
  }
  if (changes[name] !== undefined) {
    const checkpoint = await openCheckpoint(directoryFiles(from));
    const tensors = [];
    for (const { name: own, shape } of checkpoint.tensors.values()) {
      const made = change({ name: own, shape, values: await checkpoint.readFloat32(own) });
      if (made === undefined) continue;
      const { values, ...rest } = made;
      tensors.push({
        ...rest,
        dtype: "F32",
        bytes: () => [new Uint8Array(values.buffer, values.byteOffset, values.byteLength)],
      });
    }
    await checkpoint.close();
    rmSync(join(to, "model.safetensors"));
    await writeSafetensors(directorySinks(to), tensors);
  }
  return { to, isEncoder };
}

/**
 * Where llama.cpp computes another model than the golden's, that one, by fields of config.json: what rarefy, which test/golden
 * holds against transformers, says of it counts. llama.cpp rounds the ends of YaRN's range to whole pairs; gpt-oss does not.
 */
const computed = {
  gpt_oss: ({ rope_parameters }) => ({ rope_parameters: { ...rope_parameters, truncate: true } }),
};

/** What rarefy says of a model in f32: −log p of all tokens but the first, and how it goes on greedily. */
async function toldByRarefy(files, ids, count) {
  const { model, ...opened } = await openModel(files, { weights: "f32", threads: 1 });
  const nll = [];
  for (let i = 0; i + 1 < ids.length; i++) {
    const run = new Sequence(model, i + 1);
    const logits = await run.run(Uint32Array.from(ids.slice(0, i + 1)));
    const row = (await model.backend.read(logits)).subarray(0, model.config.vocabSize);
    model.backend.release(logits);
    run[Symbol.dispose]();
    nll.push(Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0)) - row[ids[i + 1]]);
  }
  const continued = generate(model, Uint32Array.from(ids), { maxTokens: count, temperature: 0, stopIds: [] });
  const { tokenIds } = await collect(continued);
  opened[Symbol.dispose]?.();
  return { nll, greedy: Array.from(tokenIds) };
}

/** The golden's figures, or rarefy's: of the model that llama.cpp computes instead, of the numbers that a file has rounded. */
async function wantedOf(name, golden, ids, file) {
  const { nll, greedy_16: greedy } = golden;
  if (options.type !== "f32") return toldByRarefy(await resolveModel(file), ids, greedy.length);
  if (computed[name] === undefined) return { nll, greedy };
  const directory = mkdtempSync(join(work, `${name}-`));
  cpSync(join(goldens, name), directory, { recursive: true });
  const config = json(join(directory, "config.json"));
  writeFileSync(join(directory, "config.json"), JSON.stringify({ ...config, ...computed[name](config) }));
  return toldByRarefy(directoryFiles(directory), ids, greedy.length);
}

/** Held against transformers by test/golden. */
async function vectorOf(directory, ids) {
  const { model, ...opened } = await openModel(directoryFiles(directory), { weights: "f32", threads: 1 });
  const vector = await embedText(model, Uint32Array.from(ids));
  opened[Symbol.dispose]?.();
  return vector;
}

const unit = (vector) => {
  const length = Math.hypot(...vector);
  return Array.from(vector, (value) => value / length);
};

async function measure(name, llama) {
  const golden = json(join(goldens, name, "golden.json"));
  const { to, isEncoder } = await checkpointOf(name);
  const file = `${to}.gguf`;
  rmSync(file, { force: true });
  const args = ["export", to, "--format", "gguf", "--type", options.type, "--quiet", "-o", file];
  execFileSync(process.execPath, [main, ...args], { stdio: ["ignore", "ignore", "pipe"] });
  const peer = await llama.loadModel({ modelPath: file });
  try {
    const architecture = peer.fileInfo.metadata.general.architecture;
    if (isEncoder) {
      const context = await peer.createEmbeddingContext({ contextSize: 128, threads: 1 });
      // Both put the tokens that begin and end a text around it.
      const ids = [2, ...golden.input_ids.filter((id) => id > 4), 3];
      const { vector } = await context.getEmbeddingFor(ids);
      const [theirs, wanted] = [unit(vector), unit(await vectorOf(to, ids))];
      return { name, architecture, worst: Math.max(...wanted.map((value, i) => Math.abs(value - theirs[i]))) };
    }
    // Where the file says that a text ends earlier, what follows is another model's.
    const ids = golden.input_ids.slice(0, peer.trainContextSize);
    const wanted = await wantedOf(name, golden, ids, file);
    const context = await peer.createContext({
      flashAttention: false,
      contextSize: 128,
      batchSize: 128,
      threads: 1,
      experimentalKvCacheKeyType: "F32",
      experimentalKvCacheValueType: "F32",
    });
    const sequence = context.getSequence();
    const differences = [];
    for (let i = 0; i + 1 < ids.length; i++) {
      const logits = await logitsAfter(sequence, ids.slice(0, i + 1));
      const [largest] = logits.values();
      let sum = 0;
      for (const logit of logits.values()) sum += Math.exp(logit - largest);
      differences.push(Math.abs(largest + Math.log(sum) - logits.get(ids[i + 1]) - wanted.nll[i]));
    }
    // llama.cpp rounds activations beside codes: where that turns the choice of an expert, one token is far off.
    differences.sort((a, b) => a - b);
    const counted = differences.at(options.type === "f32" ? -1 : Math.floor(0.9 * differences.length));
    // Together they run through the caches of prompts, one by one through those of decoding.
    const nll = await negativeLogLikelihood(sequence, ids);
    const sum = wanted.nll.slice(0, ids.length - 1).reduce((total, value) => total + value, 0);
    const worst = Math.max(counted, Math.abs(nll - sum) / (ids.length - 1));
    if (ids.length < golden.input_ids.length) return { name, architecture, worst };
    await sequence.clearHistory();
    const greedy = [];
    for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
      greedy.push(token);
      if (greedy.length === wanted.greedy.length) break;
    }
    const equal = greedy.findIndex((token, i) => token !== wanted.greedy[i]);
    return { name, architecture, worst, greedy: equal < 0 ? greedy.length : equal, of: wanted.greedy.length };
  } finally {
    await peer.dispose();
  }
}

const llama = await getLlama({ gpu: false, build: "never", maxThreads: 0, logLevel: LlamaLogLevel.warn });
const rows = [];
for (const name of positionals.length > 0 ? positionals : readdirSync(goldens).sort()) {
  const { model_type: type } = json(join(goldens, name, "config.json"));
  if (families[type].gguf === undefined) continue;
  try {
    rows.push(await measure(name, llama));
  } catch (error) {
    rows.push({
      name,
      problem: String(error.stderr ?? error.message)
        .trim()
        .split("\n")
        .at(-1),
    });
  }
  process.stderr.write(`${JSON.stringify(rows.at(-1))}\n`);
}
await llama.dispose();
if (options.keep === undefined) rmSync(work, { recursive: true });

console.log("| golden | architecture | largest difference | greedy tokens |\n| --- | --- | ---: | ---: |");
for (const { name, architecture = "", worst, greedy, of, problem } of rows) {
  const figures = problem ?? `${worst.toExponential(1)} | ${greedy === undefined ? "" : `${greedy} of ${of}`}`;
  console.log(`| \`${name}\` | ${architecture} | ${figures} |`);
}
const isRight = ({ problem, worst, greedy, of }) => problem === undefined && worst <= tolerance && greedy === of;
process.exitCode = rows.every(isRight) ? 0 : 1;

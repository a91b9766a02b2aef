// Holds rarefy against node-llama-cpp on the same GGUF files: tokens, perplexity, greedy text, chat template.
//
//   node real/agree.mjs [MODEL…] [--window 512] [--windows 8] [--scored N] [--threads 2]
//
// rarefy runs the weights that the file has, in f32. node-llama-cpp multiplies quantised weights with activations rounded to 8
// bits, so it is run twice: on the file, and on what `rarefy export` makes of it in F32, where both compute alike and must
// agree closely. With --scored only the last N tokens of each window count: logits of a large vocabulary take long in the peer's
// interface. Writes .models/real/agree-MODEL.json; exit code 1 where something differs that rounding does not explain.

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { getLlama, JinjaTemplateChatWrapper, LlamaLogLevel } from "node-llama-cpp";
import { evaluateQuality } from "../../dist/eval/index.js";
import { resolveModel } from "../../dist/io/index.node.js";
import { openModel } from "../../dist/pipeline/index.js";
import { collect, generate, Sequence } from "../../dist/runtime/index.js";
import { encodeChat, loadChatTemplate, loadTokenizer, tokenizeText } from "../../dist/text/index.js";
import { readOptions } from "../../scripts/options.mjs";
import { logitsAfter, negativeLogLikelihood } from "../llama-nll.mjs";
import { fetchModel } from "./fetch.mjs";
import { chats, chosen, folder, prompts } from "./models.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    window: { type: "string", default: "512" },
    windows: { type: "string", default: "8" },
    scored: { type: "string" },
    threads: { type: "string", default: "2" },
  },
});
const [window, maxWindows, threads] = [values.window, values.windows, values.threads].map(Number);
/** Tokens of a window that are not scored. */
const promptTokens = values.scored === undefined ? 0 : window - Number(values.scored);
/** How far node-llama-cpp may be off: the share in perplexity, and the logits between the two tokens where greedy texts part. */
const tolerances = {
  stored: { perplexity: 0.005, tie: Number.POSITIVE_INFINITY },
  f32: { perplexity: 0.0005, tie: 0.02 },
};
const greedyTokens = 64;

const books = readFileSync(fileURLToPath(new URL("../../models/text/books-eval.txt", import.meta.url)), "utf8");
const hard =
  "Hello  world\n\n\n  indented\t\ttabs\r\nCRLF  trailing   \n\n don't I'LL we've 12345 3.14 1,000,000 ½ ² Ⅷ café naïve Straße " +
  "ὀδύσσεια Привет мир 你好,世界 こんにちは 안녕하세요 مرحبا שלום हिन्दी ไทย 🙂👩‍👩‍👧‍👦🇩🇪 \u200b\u00a0\u3000 for(i=0;i<10;++i){a[i]*=2} " +
  "<|im_start|>user\nHi<|im_end|> <bos><eos><start_of_turn>user\n <unk> <pad> <0x0A> ▁▁x a▁b é e\u0301 \ufffd ﬁ ™ ①";

const same = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);

/** The file's weights as plain numbers. */
function twinOf(file) {
  const twin = file.replace(/\.gguf$/, ".F32.gguf");
  if (existsSync(twin)) return twin;
  const main = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
  execFileSync(process.execPath, [main, "export", file, "--format", "gguf", "--type", "f32", "--quiet", "-o", twin]);
  return twin;
}

async function agree(id, model) {
  const file = await fetchModel(model);
  const files = await resolveModel(file);
  const tokenizer = await loadTokenizer(files);
  const opened = await openModel(files, { weights: "f32", threads });
  const text = await tokenizeText(tokenizer, books);
  const begin = model.begin ? tokenizer.beginId : undefined;
  const [{ perplexity, windows, tokens }] = await evaluateQuality([{ name: id, model: opened.model }], text, {
    window,
    maxWindows,
    begin,
    promptTokens,
  });
  const texts = [];
  for (const prompt of prompts) {
    const ids = tokenizer.encode(prompt);
    const { tokenIds } = await collect(
      generate(opened.model, ids, { maxTokens: greedyTokens, temperature: 0, stopIds: [] }),
    );
    texts.push({ prompt, ids: Array.from(ids), tokenIds, text: tokenizer.decode(tokenIds) });
  }
  const ours = { model: opened.model, tokenizer, perplexity, windows, tokens, begin, text, texts };
  const template = await loadChatTemplate(files);

  const llama = await getLlama({ gpu: false, build: "never", maxThreads: 0, logLevel: LlamaLogLevel.error });
  const result = {
    model: id,
    file: model.file,
    window,
    windows,
    begin,
    perplexity,
    greedy: texts.map(({ text }) => text),
  };
  let agrees = true;
  for (const [weights, path] of [
    ["stored", file],
    ["f32", twinOf(file)],
  ]) {
    const peer = await llama.loadModel({ modelPath: path });
    if (weights === "stored") {
      result.sameTokens = {
        books: same(Array.from(text.tokens), peer.tokenize(books, true)),
        hard: same(Array.from(tokenizer.encode(hard, { addSpecialTokens: false })), peer.tokenize(hard, true)),
        count: text.tokens.length,
      };
      result.chat = template && chats.map((messages) => compareChat(messages, { tokenizer, template, peer }));
      agrees &&= result.sameTokens.books && result.sameTokens.hard;
      agrees &&= (result.chat ?? []).every(({ sameText, sameTokens }) => sameText && sameTokens);
    }
    process.stderr.write(`${id}: node-llama-cpp on ${weights} weights\n`);
    const compared = await compareNumbers(ours, peer);
    await peer.dispose();
    result[weights] = compared;
    const { perplexity: share, tie } = tolerances[weights];
    agrees &&= Math.abs(compared.ratio - 1) <= share;
    agrees &&= compared.greedy.every(({ margins }) => !margins || Math.max(margins.rarefy, margins.peer) <= tie);
  }
  await llama.dispose();
  opened[Symbol.dispose]();
  return { ...result, agrees };
}

async function compareNumbers(ours, peer) {
  const { text, windows, tokens, begin } = ours;
  const contextSize = Math.max(window, 256) + 1;
  const context = await peer.createContext({ contextSize, batchSize: contextSize, threads });
  const sequence = context.getSequence();
  let nll = 0;
  for (let w = 0; w < windows; w++) {
    const ids = Array.from(text.tokens.subarray(w * window, (w + 1) * window));
    // The first token has nothing before it but a begin-of-text token. What is read of a prompt counts that token too.
    const all = begin === undefined ? ids : [begin, ...ids];
    nll += await negativeLogLikelihood(sequence, all, Math.max(0, promptTokens - 1));
    process.stderr.write(`\rwindow ${w + 1} of ${windows}`);
  }
  process.stderr.write("\n");
  const perplexity = Math.exp(nll / tokens);
  const greedy = [];
  for (const one of ours.texts) greedy.push(await compareGreedy(one, ours, sequence, peer));
  await context.dispose();
  return { perplexity, ratio: ours.perplexity / perplexity, greedy };
}

/** Where greedy texts part, each side says how far its own choice lay above the other's. */
async function compareGreedy({ ids, tokenIds }, { model, tokenizer }, sequence, peer) {
  await sequence.clearHistory();
  const theirs = [];
  for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
    theirs.push(token);
    if (theirs.length === greedyTokens) break;
  }
  const at = tokenIds.findIndex((token, i) => token !== theirs[i]);
  if (at < 0) return { equalTokens: greedyTokens };
  const before = [...ids, ...theirs.slice(0, at)];
  const [mine, other] = [tokenIds[at], theirs[at]];
  const run = new Sequence(model, before.length);
  const logits = await run.run(Uint32Array.from(before));
  const row = await model.backend.read(logits);
  model.backend.release(logits);
  run[Symbol.dispose]();
  const peerLogits = await logitsAfter(sequence, before);
  const margins = { rarefy: row[mine] - row[other], peer: peerLogits.get(other) - peerLogits.get(mine) };
  return {
    equalTokens: at,
    tokens: { rarefy: tokenizer.decode([mine]), peer: peer.detokenize([other], true) },
    margins,
  };
}

/** The peer renders the template of the file with its own Jinja. */
function compareChat(messages, { tokenizer, template, peer }) {
  const { chat_template: source } = peer.fileInfo.metadata.tokenizer;
  const wrapper = new JinjaTemplateChatWrapper({ template: source, trimLeadingWhitespaceInResponses: false });
  const chatHistory = messages.map(({ role, content }) =>
    role === "assistant" ? { type: "model", response: [content] } : { type: role, text: content },
  );
  const { contextText } = wrapper.generateContextState({
    chatHistory: [...chatHistory, { type: "model", response: [] }],
  });
  // The peer makes tokens of what the user wrote by itself; transformers, as rarefy, of the whole text.
  const theirs = peer.detokenize(contextText.tokenize(peer.tokenizer), true);
  const rendered = template.render(messages);
  const ids = Array.from(encodeChat(tokenizer, template, messages));
  return { sameText: rendered === theirs, sameTokens: same(ids, peer.tokenize(theirs, true)), text: rendered };
}

let allAgree = true;
for (const [id, model] of chosen(positionals)) {
  const result = await agree(id, model);
  allAgree &&= result.agrees;
  writeFileSync(join(folder, `agree-${id}.json`), `${JSON.stringify(result, null, 2)}\n`);
  console.log(JSON.stringify(result, null, 2));
}
process.exitCode = allAgree ? 0 : 1;

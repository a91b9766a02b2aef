// Holds rarefy against node-llama-cpp on the same GGUF files: tokens, perplexity, greedy text, chat template.
//
//   node real/agree.mjs [MODEL…] [--window 512] [--windows 8] [--threads 2]
//
// Weights as the file has them, in f32; node-llama-cpp multiplies them with activations rounded to 8 bits, so that the last
// digits differ. Writes .models/real/agree-MODEL.json; exit code 1 where something differs that this does not explain.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { getLlama, JinjaTemplateChatWrapper, LlamaLogLevel } from "node-llama-cpp";
import { evaluateQuality } from "../../dist/eval/index.js";
import { resolveModel } from "../../dist/io/index.node.js";
import { openModel } from "../../dist/pipeline/index.js";
import { collect, generate, Sequence } from "../../dist/runtime/index.js";
import { encodeChat, loadChatTemplate, loadTokenizer, tokenizeText } from "../../dist/text/index.js";
import { logitsAfter, negativeLogLikelihood } from "../llama-nll.mjs";
import { fetchModel } from "./fetch.mjs";
import { chats, chosen, folder, prompts } from "./models.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    window: { type: "string", default: "512" },
    windows: { type: "string", default: "8" },
    threads: { type: "string", default: "2" },
  },
});
const [window, maxWindows, threads] = [values.window, values.windows, values.threads].map(Number);
/** The perplexities may differ by this share. */
const tolerance = 0.005;
/** Where greedy texts part, the two tokens may be this far apart in either one's logits. */
const nearTie = 0.25;
const greedyTokens = 64;

const text = readFileSync(fileURLToPath(new URL("../../models/text/books-eval.txt", import.meta.url)), "utf8");
const hard =
  "Hello  world\n\n\n  indented\t\ttabs\r\nCRLF  trailing   \n\n don't I'LL we've 12345 3.14 1,000,000 ½ ² Ⅷ café naïve Straße " +
  "ὀδύσσεια Привет мир 你好,世界 こんにちは 안녕하세요 مرحبا שלום हिन्दी ไทย 🙂👩‍👩‍👧‍👦🇩🇪 \u200b\u00a0\u3000 for(i=0;i<10;++i){a[i]*=2} " +
  "<|im_start|>user\nHi<|im_end|> <bos><eos><start_of_turn>user\n <unk> <pad> <0x0A> ▁▁x a▁b é e\u0301 \ufffd ﬁ ™ ①";

const same = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);

async function agree(id, model) {
  const file = await fetchModel(model);
  const files = await resolveModel(file);
  const tokenizer = await loadTokenizer(files);
  const llama = await getLlama({ gpu: false, build: "never", maxThreads: 0, logLevel: LlamaLogLevel.error });
  const peer = await llama.loadModel({ modelPath: file });
  const opened = await openModel(files, { weights: "f32", threads });
  const ours = opened.model;

  const tokenised = await tokenizeText(tokenizer, text);
  const tokens = {
    books: same(Array.from(tokenised.tokens), peer.tokenize(text, true)),
    hard: same(Array.from(tokenizer.encode(hard, { addSpecialTokens: false })), peer.tokenize(hard, true)),
    count: tokenised.tokens.length,
  };

  const begin = model.begin ? peer.tokens.bos : undefined;
  const contextSize = Math.max(window, 256) + 1;
  const context = await peer.createContext({ contextSize, batchSize: contextSize, threads });
  const sequence = context.getSequence();
  const [quality] = await evaluateQuality([{ name: id, model: ours }], tokenised, { window, maxWindows, begin });
  let nll = 0;
  for (let w = 0; w < quality.windows; w++) {
    const ids = Array.from(tokenised.tokens.subarray(w * window, (w + 1) * window));
    nll += await negativeLogLikelihood(sequence, begin === undefined ? ids : [begin, ...ids]);
    process.stderr.write(`\r${id}: window ${w + 1} of ${quality.windows}`);
  }
  process.stderr.write("\n");
  const theirs = Math.exp(nll / quality.tokens);
  const perplexity = { rarefy: quality.perplexity, peer: theirs, ratio: quality.perplexity / theirs };

  const greedy = [];
  for (const prompt of prompts) greedy.push(await compareGreedy(prompt, { tokenizer, ours, sequence, peer }));

  const template = await loadChatTemplate(files);
  const chat = template && chats.map((messages) => compareChat(messages, { tokenizer, template, peer }));
  await llama.dispose();
  opened[Symbol.dispose]();

  const agrees =
    tokens.books &&
    tokens.hard &&
    Math.abs(perplexity.ratio - 1) <= tolerance &&
    greedy.every(({ explained }) => explained) &&
    (chat ?? []).every(({ sameTokens }) => sameTokens);
  return {
    model: id,
    file: model.file,
    window,
    windows: quality.windows,
    begin,
    tokens,
    perplexity,
    greedy,
    chat,
    agrees,
  };
}

/** Both go on greedily; where they part, each says how far its own choice lay above the other's. */
async function compareGreedy(prompt, { tokenizer, ours, sequence, peer }) {
  const ids = Array.from(tokenizer.encode(prompt));
  const { tokenIds } = await collect(
    generate(ours, Uint32Array.from(ids), { maxTokens: greedyTokens, temperature: 0, stopIds: [] }),
  );
  await sequence.clearHistory();
  const theirs = [];
  for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
    theirs.push(token);
    if (theirs.length === greedyTokens) break;
  }
  const at = tokenIds.findIndex((token, i) => token !== theirs[i]);
  const result = { prompt, text: tokenizer.decode(tokenIds), equalTokens: at < 0 ? greedyTokens : at };
  if (at < 0) return { ...result, explained: true };
  const before = [...ids, ...theirs.slice(0, at)];
  const [mine, other] = [tokenIds[at], theirs[at]];
  const run = new Sequence(ours, before.length);
  const logits = await run.run(Uint32Array.from(before));
  const row = await ours.backend.read(logits);
  ours.backend.release(logits);
  run[Symbol.dispose]();
  const peerLogits = await logitsAfter(sequence, before);
  const margins = { rarefy: row[mine] - row[other], peer: peerLogits.get(other) - peerLogits.get(mine) };
  const tokens = { rarefy: tokenizer.decode([mine]), peer: peer.detokenize([other], true) };
  const explained = margins.rarefy <= nearTie && margins.peer <= nearTie;
  return { ...result, tokens, margins, explained };
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
  const theirs = contextText.tokenize(peer.tokenizer);
  const ours = Array.from(encodeChat(tokenizer, template, messages));
  return { sameTokens: same(ours, theirs), rarefy: tokenizer.decode(ours), peer: peer.detokenize(theirs, true) };
}

let allAgree = true;
for (const [id, model] of chosen(positionals)) {
  const result = await agree(id, model);
  allAgree &&= result.agrees;
  writeFileSync(join(folder, `agree-${id}.json`), `${JSON.stringify(result, null, 2)}\n`);
  console.log(JSON.stringify(result, null, 2));
}
process.exitCode = allAgree ? 0 : 1;

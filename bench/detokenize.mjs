// What it takes to make text of generated tokens, beside what the tokens take: CPU time of one thread.
//   npm run build && node bench/detokenize.mjs [--model models/tiny-6m] [--tokens 2000] [--generated 64] [--repeats 5]
// Texts: a book; the same with every word 40 times as long; bytes that are no text, which hold everything back. Then tokens of the model
// with text and without, taking turns.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { directoryFiles } from "../dist/io/index.node.js";
import { openModel } from "../dist/pipeline/index.js";
import { collect, generate } from "../dist/runtime/index.js";
import { Detokenizer, loadTokenizer } from "../dist/text/index.js";
import { readOptions } from "../scripts/options.mjs";
import { median } from "./rounds.mjs";
import { cpuMs } from "./stopwatch.mjs";

const { values } = readOptions({
  options: {
    model: { type: "string", default: join(import.meta.dirname, "../models/tiny-6m") },
    tokens: { type: "string", default: "2000" },
    generated: { type: "string", default: "64" },
    repeats: { type: "string", default: "5" },
  },
});
const [count, generated, repeats] = [values.tokens, values.generated, values.repeats].map(Number);
const book = readFileSync(join(import.meta.dirname, "../models/text/books-eval.txt"), "utf8");

/** The tokenizer of the model with tokens of letters 40 times as long. */
async function longWords() {
  const directory = mkdtempSync(join(tmpdir(), "rarefy-long-words-"));
  try {
    const read = (name) => readFileSync(join(values.model, name), "utf8");
    const definition = JSON.parse(read("tokenizer.json"));
    const long = (token) => (/^Ġ?[a-z]+$/i.test(token) ? token.repeat(40) : token);
    const vocab = Object.entries(definition.model.vocab).map(([token, id]) => [long(token), id]);
    definition.model = { ...definition.model, vocab: Object.fromEntries(vocab), merges: [] };
    writeFileSync(join(directory, "tokenizer.json"), JSON.stringify(definition));
    writeFileSync(join(directory, "tokenizer_config.json"), read("tokenizer_config.json"));
    return await loadTokenizer(directoryFiles(directory));
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Least microseconds of one token, over the repeats. */
function microseconds(tokenizer, ids) {
  const samples = Array.from({ length: repeats + 1 }, () => {
    const detokenizer = new Detokenizer(tokenizer, { skipSpecialTokens: true });
    const since = cpuMs();
    for (const id of ids) detokenizer.push(id);
    return cpuMs() - since;
  });
  return (1000 * Math.min(...samples.slice(1))) / ids.length;
}

const tokenizer = await loadTokenizer(directoryFiles(values.model));
const ids = tokenizer.encode(book.slice(0, 8 * count)).slice(0, count);
/** A token that is half of a character, again and again. */
const half = Array.from({ length: 1000 }, (_, id) => id).find((id) => tokenizer.decode([id]) === "\uFFFD");
const cases = [
  ["a book", tokenizer, ids],
  ["words 40 times as long", await longWords(), ids],
  ["halves of characters", tokenizer, Uint32Array.from(ids, () => half)],
];
for (const [name, with_, tokens] of cases) console.log(`${name}: ${microseconds(with_, tokens).toFixed(1)} µs a token`);

const opened = await openModel(directoryFiles(values.model), { threads: 1 });
const prompt = ids.slice(0, 32);
const samples = { text: [], none: [] };
for (let round = 0; round <= repeats; round++) {
  for (const kind of ["text", "none"]) {
    const since = cpuMs();
    const options = { maxTokens: generated, stopIds: [], ...(kind === "text" && { tokenizer }) };
    await collect(generate(opened.model, prompt, options));
    if (round > 0) samples[kind].push((cpuMs() - since) / generated);
  }
}
const ofKind = (kind) => median(samples[kind]).toFixed(3);
console.log(`${opened.model.backend.info.description}`);
console.log(`a generated token: ${ofKind("text")} ms with text, ${ofKind("none")} ms without`);
opened[Symbol.dispose]();

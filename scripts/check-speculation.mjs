// Speculation against figures and against itself: how often a draft agrees with its target along a text, whether the rule of
// acceptance gives the target's law (chi-square), and whether greedy texts are those without a draft. Exit code 1 where a law is off.
//
// node scripts/check-speculation.mjs TARGET DRAFT TEXT [--windows 40] [--samples 100000] [--texts 2000] [--greedy 10000]
import { readFile } from "node:fs/promises";
import { loadTokenizer, openModel, tokenizeText } from "rarefy";
import { resolveModel } from "rarefy/io/node";
import { collect, generate, modelDraft, Sampler, Sequence } from "rarefy/runtime";
import { accept } from "../dist/runtime/speculate/accept.js";
import { readOptions } from "./options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    windows: { type: "string", default: "40" },
    samples: { type: "string", default: "100000" },
    texts: { type: "string", default: "2000" },
    greedy: { type: "string", default: "10000" },
    weights: { type: "string", default: "f32" },
    threads: { type: "string" },
  },
});
const [targetName, draftName, textFile] = positionals;
const options = { weights: values.weights, threads: values.threads && Number(values.threads) };
const files = await resolveModel(targetName);
const tokenizer = await loadTokenizer(files);
const target = (await openModel(files, options)).model;
const draft = (await openModel(await resolveModel(draftName), options)).model;
const { tokens } = await tokenizeText(tokenizer, await readFile(textFile, "utf8"));
const window = 512;
const vocabulary = target.config.vocabSize;

/** Logits f32 [vocabulary] at every position of a window. */
async function logitsOf(model, ids) {
  const sequence = new Sequence(model, ids.length);
  const logits = await sequence.runRows(ids);
  const all = await model.backend.read(logits);
  model.backend.release(logits);
  sequence[Symbol.dispose]();
  return (i) => all.subarray(i * model.logitCols, i * model.logitCols + vocabulary);
}

const samplers = { greedy: { temperature: 0 }, 0.7: { temperature: 0.7 }, 1: { temperature: 1 } };
const sums = Object.fromEntries(Object.keys(samplers).map((name) => [name, 0]));
const windows = Number(values.windows);
for (let w = 0; w < windows; w++) {
  const ids = tokens.subarray(w * window, (w + 1) * window);
  const [p, q] = [await logitsOf(target, ids), await logitsOf(draft, ids)];
  for (let i = 0; i < window - 1; i++) {
    for (const [name, sampling] of Object.entries(samplers)) {
      const sampler = new Sampler(sampling);
      const [a, b] = [sampler.law(p(i), []), sampler.law(q(i), [])];
      for (let v = 0; v < vocabulary; v++) sums[name] += Math.min(a[v], b[v]);
    }
  }
}
for (const [name, sum] of Object.entries(windows === 0 ? {} : sums)) {
  console.log(`acceptance at temperature ${name}: ${(sum / windows / (window - 1)).toFixed(5)} (${windows} windows)`);
}

/** How far a chi-square lies from what chance gives, about normal (Wilson and Hilferty). */
const deviation = (chiSquare, freedom) =>
  ((chiSquare / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / Math.sqrt(2 / (9 * freedom));

/** Counts against what is expected, classes of less than 5 together. @returns degrees of freedom, chi-square, and its z */
function test(counts, expected) {
  let [chiSquare, classes, restCount, restExpected] = [0, 0, 0, 0];
  for (const [i, e] of expected.entries()) {
    if (e < 5) {
      restCount += counts[i];
      restExpected += e;
      continue;
    }
    classes++;
    chiSquare += (counts[i] - e) ** 2 / e;
  }
  // What can never come must not.
  if (restExpected === 0 && restCount > 0) chiSquare = Number.POSITIVE_INFINITY;
  if (restExpected > 0) {
    classes++;
    chiSquare += (restCount - restExpected) ** 2 / restExpected;
  }
  const freedom = classes - 1;
  return { chiSquare, freedom, z: freedom === 0 ? 0 : deviation(chiSquare, freedom) };
}

// What comes out of a round depends on nothing but the laws of draft and target: a token is proposed and decided `samples` times at each
// of some places of the text, by the functions that decide as a model runs, from logits that were computed once.
const samples = Number(values.samples);
const laws = {
  "temperature 1": { temperature: 1 },
  "temperature 0.7": { temperature: 0.7 },
  "top-k 20": { temperature: 1, topK: 20 },
  "top-p 0.9": { temperature: 1, topP: 0.9 },
  "min-p 0.05": { temperature: 1, minP: 0.05 },
  "repetition penalty 1.3": { temperature: 1, repetitionPenalty: 1.3 },
  "all of them": { temperature: 0.8, topK: 50, topP: 0.95, minP: 0.02, repetitionPenalty: 1.1 },
};
let farthest = 0;
if (samples > 0) {
  const read = tokens.subarray(0, window);
  const [targetAt, draftAt] = [await logitsOf(target, read), await logitsOf(draft, read)];
  const places = [7, 200, 500];
  console.log("sampler | place | accepted | sum of min(p, q) | chi-square | degrees | z");
  for (const [name, sampling] of Object.entries(laws)) {
    for (const place of places) {
      const sampler = new Sampler({ ...sampling, seed: place });
      const occurred = read.subarray(0, place + 1);
      const [p, q] = [targetAt, draftAt].map((at) => sampler.law(at(place), occurred));
      const counts = new Float64Array(vocabulary);
      let accepted = 0;
      for (let i = 0; i < samples; i++) {
        const id = sampler.draw(q);
        // Behind an accepted token nothing is looked at here.
        const decided = accept(
          [id],
          () => q,
          () => p,
          () => sampler.uniform(),
          (weights) => sampler.draw(weights),
        );
        accepted += decided.accepted;
        counts[decided.accepted === 1 ? id : decided.next]++;
      }
      const { chiSquare, freedom, z } = test(
        counts,
        p.map((share) => share * samples),
      );
      farthest = Math.max(farthest, Math.abs(z));
      const overlap = p.reduce((sum, share, v) => sum + Math.min(share, q[v]), 0);
      const shown = [(accepted / samples).toFixed(4), overlap.toFixed(4), chiSquare.toFixed(1), freedom, z.toFixed(2)];
      console.log([name, place, ...shown].join(" | "));
    }
  }
  console.log(
    `${samples} tokens each; the farthest z of ${Object.keys(laws).length * places.length} is ${farthest.toFixed(2)}`,
  );
  if (farthest > 4.5) process.exitCode = 1;
}

// From end to end, caches taken back and all: texts of two tokens after a prompt, against the law of such texts.
const texts = Number(values.texts);
if (texts > 0) {
  const prompt = tokens.subarray(0, 32);
  const sequence = new Sequence(target, prompt.length + 4);
  const sampling = { temperature: 1, topK: 8 };
  const logits = await sequence.run(prompt);
  const first = new Sampler(sampling).law((await target.backend.read(logits)).subarray(0, vocabulary), prompt);
  target.backend.release(logits);
  const found = new Map();
  const proposer = modelDraft(draft);
  for (let seed = 0; seed < texts; seed++) {
    const own = { ...sampling, seed, maxTokens: 2, stopIds: [], draft: proposer, draftTokens: 1, sequence };
    const { tokenIds } = await collect(generate(target, prompt, own));
    const key = tokenIds.join(" ");
    found.set(key, (found.get(key) ?? 0) + 1);
  }
  const [counts, expected] = [[], []];
  for (const [a, pa] of first.entries()) {
    if (pa === 0) continue;
    sequence.rewind(prompt.length);
    const row = await sequence.run(Uint32Array.of(a));
    const second = new Sampler(sampling).law((await target.backend.read(row)).subarray(0, vocabulary), prompt);
    target.backend.release(row);
    for (const [b, pb] of second.entries()) {
      if (pb === 0) continue;
      counts.push(found.get(`${a} ${b}`) ?? 0);
      expected.push(texts * pa * pb);
    }
  }
  sequence[Symbol.dispose]();
  const { chiSquare, freedom, z } = test(counts, expected);
  console.log(
    `chi-square of ${texts} texts of two tokens: ${chiSquare.toFixed(1)}, ${freedom} degrees, z = ${z.toFixed(2)}`,
  );
  if (Math.abs(z) > 4.5) process.exitCode = 1;
}

let [same, differing] = [0, 0];
for (let w = 0; same + differing < Number(values.greedy); w++) {
  const prompt = tokens.subarray(w * window, w * window + 16);
  const text = { maxTokens: 256, stopIds: [] };
  const plain = await collect(generate(target, prompt, { ...text, ahead: false }));
  const drafted = await collect(generate(target, prompt, { ...text, draft: modelDraft(draft), draftTokens: 4 }));
  const alike = plain.tokenIds.filter((id, i) => id === drafted.tokenIds[i]).length;
  same += alike;
  differing += plain.tokenIds.length - alike;
  if (w === 0) console.log(`tokens of a round: ${(256 / drafted.speculation.rounds).toFixed(2)}`);
}
if (same + differing > 0) console.log(`greedy: ${same} of ${same + differing} tokens as without a draft`);
if (differing > 0) process.exitCode = 1;

// Speculation against figures and against itself: how often a draft agrees with its target along a text, whether the rule of
// acceptance gives the target's law (chi-square), and whether greedy texts are those without a draft.
//
// node scripts/check-speculation.mjs TARGET DRAFT TEXT [--windows 40] [--samples 100000] [--greedy 10000]
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { loadTokenizer, openModel, tokenizeText } from "rarefy";
import { resolveModel } from "rarefy/io/node";
import { collect, generate, modelDraft, Sampler, Sequence } from "rarefy/runtime";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    windows: { type: "string", default: "40" },
    samples: { type: "string", default: "100000" },
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
for (const [name, sum] of Object.entries(sums)) {
  console.log(`acceptance at temperature ${name}: ${(sum / windows / (window - 1)).toFixed(5)} (${windows} windows)`);
}

// Two tokens after a prompt; classes are the ten likeliest first tokens, and the rest.
const samples = Number(values.samples);
if (samples > 0) {
  const prompt = tokens.subarray(0, 32);
  const sequence = new Sequence(target, prompt.length + 4);
  const sampling = { temperature: 1, topK: 20 };
  const logits = await sequence.run(prompt);
  const first = new Sampler(sampling).law((await target.backend.read(logits)).subarray(0, vocabulary), []);
  target.backend.release(logits);
  const counts = new Map();
  const proposer = modelDraft(draft);
  for (let seed = 0; seed < samples; seed++) {
    const own = { ...sampling, seed, maxTokens: 2, stopIds: [], draft: proposer, draftTokens: 1, sequence };
    const { tokenIds } = await collect(generate(target, prompt, own));
    const key = tokenIds.join(" ");
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  let [chiSquare, classes] = [0, 0];
  for (const [a, pa] of first.entries()) {
    if (pa === 0) continue;
    sequence.rewind(prompt.length);
    const row = await sequence.run(Uint32Array.of(a));
    const second = new Sampler(sampling).law((await target.backend.read(row)).subarray(0, vocabulary), []);
    target.backend.release(row);
    for (const [b, pb] of second.entries()) {
      if (pb === 0) continue;
      const expected = samples * pa * pb;
      classes++;
      chiSquare += ((counts.get(`${a} ${b}`) ?? 0) - expected) ** 2 / expected;
    }
  }
  sequence[Symbol.dispose]();
  const freedom = classes - 1;
  // Wilson and Hilferty: about normal.
  const z = ((chiSquare / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / Math.sqrt(2 / (9 * freedom));
  console.log(
    `chi-square of ${samples} texts of two tokens: ${chiSquare.toFixed(1)}, ${freedom} degrees, z = ${z.toFixed(2)}`,
  );
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

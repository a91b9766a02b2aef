// Small data sets in the form of those that lm-evaluation-harness' own task files name, made of a text.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const documentsOf = { train: 30, validation: 40, test: 40 };

/** @param text of some 100,000 characters @param folder gets DATA_SET/NAME/SPLIT.jsonl */
export function writeDataSets(text, folder) {
  const sentences = text
    .replace(/\s+/g, " ")
    .match(/[A-Z][^.!?]{30,160}[.!?]/g)
    .map((sentence) => sentence.trim());
  let at = 0;
  const next = () => sentences[at++ % sentences.length];
  const words = (sentence) => sentence.split(" ");
  const end = (sentence) => words(sentence).slice(-6).join(" ");
  const four = () => [end(next()), end(next()), end(next()), end(next())];
  const letters = ["A", "B", "C", "D"];

  const arc = (i) => {
    const count = i % 5 === 0 ? 3 : 4;
    const label = (i % 7 === 0 ? ["1", "2", "3", "4"] : letters).slice(0, count);
    return {
      id: `q${i}`,
      question: next(),
      choices: { text: four().slice(0, count), label },
      answerKey: label[i % count],
    };
  };
  const dataSets = {
    "allenai/ai2_arc/ARC-Easy": arc,
    "allenai/ai2_arc/ARC-Challenge": arc,
    "Rowan/hellaswag": (i) => ({
      ind: i,
      activity_label: words(next()).slice(0, 2).join(" "),
      ctx_a: `${next()} [header] ${i % 2 ? "[title] of  it" : ""}`,
      ctx_b: i % 3 === 0 ? "" : words(next()).slice(0, 3).join(" "),
      ctx: next(),
      endings: four().map((ending, e) => (e === i % 4 ? `${ending} [substeps] [title] on` : ending)),
      label: String(i % 4),
    }),
    "baber/piqa": (i) => ({ goal: next(), sol1: end(next()), sol2: `${end(next())} — ça`, label: i % 2 }),
    "allenai/winogrande/winogrande_xl": (i) => {
      const parts = words(next());
      parts[3] = "_";
      return {
        sentence: parts.join(" "),
        option1: words(next())[0],
        option2: words(next())[1],
        answer: String((i % 2) + 1),
      };
    },
    "EleutherAI/lambada_openai/default": () => ({ text: `${next()} ${next()}`.replace(/[.!?]$/, "") }),
    "cimec/lambada": () => ({ text: next().replace(/[.!?]$/, "") }),
    "aps/super_glue/boolq": (i) => ({
      passage: `${next()} ${next()}`,
      question: next().slice(0, -1),
      idx: i,
      label: i % 2,
    }),
    "allenai/openbookqa/main": (i) => ({
      id: String(i),
      question_stem: next(),
      choices: { text: four(), label: letters },
      answerKey: ` ${letters[i % 4]}`,
    }),
    "nyu-mll/glue/rte": (i) => ({ sentence1: next(), sentence2: next(), label: i % 2, idx: i }),
  };
  for (const [name, make] of Object.entries(dataSets)) {
    const place = join(folder, name);
    mkdirSync(place, { recursive: true });
    for (const [split, count] of Object.entries(documentsOf)) {
      const lines = Array.from({ length: count }, (_, i) => JSON.stringify(make(i)));
      writeFileSync(join(place, `${split}.jsonl`), `${lines.join("\n")}\n`);
    }
  }
}

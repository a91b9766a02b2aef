import { meanAndDeviation, spread } from "../../core/index.js";
import { lineChart } from "../../report/internal.js";
import type { ExperimentReport, FinishedCell } from "./contract.js";
import { type Contestant, languageModels, students } from "./distillationContestants.js";
import type { LanguageResult } from "./distillationLanguage.js";
import type { LanguageProtocol, ModelSize, StudentProtocol } from "./distillationProtocol.js";
import type { StudentResult } from "./distillationStudents.js";
import { responseLength, vocabulary, window } from "./distillationTask.js";

const teacherName = "teacher";

function resultsOf<R>(cells: readonly FinishedCell[]) {
  const of = (name: string) => cells.filter(({ settings }) => settings.name === name).map(({ result }) => result as R);
  const named = (contestants: Readonly<Record<string, Contestant>>) =>
    [teacherName, ...Object.keys(contestants)].filter((name) => of(name).length > 0);
  return { of, named };
}

const sizeOf = ({ layers, hiddenSize, intermediateSize, heads }: ModelSize) =>
  `${layers} layers, ${hiddenSize} wide, MLPs of ${intermediateSize}, ${heads} heads`;

/** (R(l) − l·ε(l)) / (l·ε(l)), in %. */
const excess = ({ own, oracle }: NonNullable<StudentResult["error"]>): number[] =>
  own.map((sum, t) => 100 * (sum / Math.max(oracle[t], 1e-12) - 1));

export function reportStudents(cells: readonly FinishedCell[], protocol: StudentProtocol): ExperimentReport {
  const { of, named } = resultsOf<StudentResult>(cells);
  const names = named(students);
  const titleOf = (name: string) => students[name]?.title ?? "the teacher itself";
  const { teacher, student, batchSize, reports, tests } = protocol;
  const column = (name: string, places: number, value: (result: StudentResult) => number | undefined) => {
    const values = of(name).map(value);
    return values.some((one) => one === undefined) ? "–" : spread(values as number[], places);
  };
  const row = (name: string) => [
    titleOf(name),
    String(of(name)[0].tokens),
    column(name, 3, ({ loss }) => loss),
    column(name, 1, ({ sampled }) => 100 * sampled.rougeL),
    column(name, 1, ({ sampled }) => 100 * sampled.right),
    column(name, 1, ({ greedy }) => 100 * greedy.rougeL),
    column(name, 1, ({ greedy }) => 100 * greedy.right),
    column(name, 2, ({ error }) => error?.oracle.at(-1)),
    column(name, 2, ({ error }) => error?.own.at(-1)),
    column(name, 1, ({ error }) => (error === null ? undefined : excess(error).at(-1))),
  ];
  const curve = (name: string) => {
    const all = of(name).flatMap(({ error }) => (error === null ? [] : [excess(error)]));
    return {
      name: titleOf(name),
      points: all[0].map((_, t) => [t + 1, meanAndDeviation(all.map((one) => one[t])).mean] as const),
    };
  };
  return {
    protocol: [
      [
        "task",
        `a report of five fields is told in one of four ways, whose words and order belong together: ${vocabulary.length} words, windows of ${window} tokens`,
      ],
      [
        "teacher",
        `Llama, ${sizeOf(teacher)}; ${teacher.steps} steps at ${teacher.rate}, on reports that are always new`,
      ],
      [
        "student",
        `Llama, ${sizeOf(student)}; ${student.steps} steps at ${student.rate}, on ${reports} reports with one text each`,
      ],
      [
        "training",
        `batches of ${batchSize} texts, of which the response is learnt; AdamW (β 0.9, 0.95), cosine to a twentieth, clip 1`,
      ],
      [
        "MiniLLM",
        `as published: teacher's share 0.2, single steps, length-normalised; ${responseLength} tokens are written`,
      ],
      ["evaluation", `${tests} new reports`],
    ],
    tables: [
      {
        title: "Students of one teacher, at equal tokens",
        columns: [
          "learnt from",
          "student's tokens",
          "nats a token, held out",
          "Rouge-L, drawn",
          "without mistake, %",
          "Rouge-L, likeliest",
          "without mistake, %",
          "error behind the teacher's texts",
          "behind its own, R",
          "ExAccErr, %",
        ],
        rows: names.map(row),
      },
    ],
    figures: [
      {
        name: "exposure-bias",
        title: "Excess error that accumulates behind the student's own texts, by length",
        picture: lineChart(names.filter((name) => name !== teacherName).map(curve), {
          title: "Exposure bias",
          names: "below",
          xLabel: "tokens written",
          yLabel: "ExAccErr, %",
        }),
      },
    ],
    notes: [
      "Rouge-L is the best F1 × 100 against the four right texts of a report, so that 100 is a text without mistake; texts are drawn token by token, or made of the likeliest tokens.",
      "Errors are KL(teacher ‖ student) of the next token in nats, added up over a text. ExAccErr (Arora et al. 2022, as Gu et al. use it) is by how much that is more behind texts of the student than behind texts of the teacher.",
      "After SFT: the first half of the steps learns the texts alone, and the other half what is named.",
      "MiniLLM's steps count the windows that the student writes; drawing them takes passes of both models that are not counted.",
    ],
  };
}

export function reportLanguageModels(cells: readonly FinishedCell[], protocol: LanguageProtocol): ExperimentReport {
  const { of, named } = resultsOf<LanguageResult>(cells);
  const { student, steps, batchSize, window, rate, testWindows } = protocol;
  const perplexities = (name: string) => of(name).map(({ perplexity }) => perplexity);
  const alone = meanAndDeviation(perplexities("text")).mean;
  const row = (name: string) => {
    const [{ tokens, tokensPerSecond }] = of(name);
    return [
      languageModels[name]?.title ?? "the teacher itself",
      tokens === 0 ? "–" : String(tokens),
      spread(perplexities(name), 2),
      (meanAndDeviation(perplexities(name)).mean / alone).toFixed(3),
      tokensPerSecond === null ? "–" : tokensPerSecond.toFixed(0),
    ];
  };
  return {
    protocol: [
      ["teacher", `${cells[0].settings.model}`],
      ["student", `Llama, ${sizeOf(student)} and ${student.kvHeads} of keys, from random weights`],
      [
        "training",
        `${steps} steps of ${batchSize} × ${window} tokens, AdamW (β 0.9, 0.95) at ${rate}, cosine to a tenth, clip 1`,
      ],
      ["shares", "half of the loss is the teacher's in KD; hidden states have weight 1 beside it"],
      ["evaluation", `the first ${testWindows} windows of ${window} tokens`],
    ],
    tables: [
      {
        title: "Perplexity of a student by what it learnt from",
        columns: ["learnt from", "tokens", "perplexity", "× the text alone", "tokens per second"],
        rows: named(languageModels).map(row),
      },
    ],
    figures: [],
    notes: [
      "All students see the same tokens in the same order. Tokens per second are those of the whole step, with the teacher's pass.",
      "SeqKD and MiniLLM have the teacher or the student write, which is done at the other scales.",
    ],
  };
}

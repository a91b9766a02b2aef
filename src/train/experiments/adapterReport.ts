import { spread } from "../../core/index.js";
import { lineChart } from "../../report/internal.js";
import { type AdapterProtocol, contestants } from "./adapterProtocol.js";
import { heldOutTasks, learntTasks, titleOf } from "./adapterTasks.js";
import type { CellResult, ExperimentReport, FinishedCell } from "./contract.js";

/** Shares of right answers by task. */
type Shares = Record<string, number>;

/** What one way to learn all tasks came to. */
export interface ContestantResult {
  /** Numbers that were trained. */
  trained: number;
  /** Of every step. */
  losses: number[];
  learnt: Shares;
  heldOut: Shares;
}

export interface AdapterResult extends CellResult {
  /** By contestant. */
  learnt: Record<string, ContestantResult>;
  /** Of held-out tasks, by how the few examples were used. */
  few: Record<string, Shares>;
  /** Numbers of the model. */
  weights: number;
}

const smoothing = 10;
const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
const percent = (shares: readonly number[]) =>
  spread(
    shares.map((share) => 100 * share),
    1,
  );

export function reportAdapters(cells: readonly FinishedCell[], protocol: AdapterProtocol): ExperimentReport {
  const results = cells.map(({ result }) => result as AdapterResult);
  const [first] = results;
  const names = Object.keys(contestants);
  const fewNames = Object.keys(first.few);
  const { layers, hiddenSize, heads, episodes, baseSteps, baseRate, instructions, steps } = protocol;
  const { shots, moduleSteps, fewSteps, evaluations, tests } = protocol;
  const over = (of: (result: AdapterResult) => Shares, tasks: readonly string[]) =>
    percent(results.map((result) => mean(tasks.map((task) => of(result)[task]))));
  return {
    protocol: [
      [
        "model",
        `Llama over characters, ${layers} layers, ${hiddenSize} wide, ${heads} heads, ${first.weights} weights`,
      ],
      [
        "base",
        `${baseSteps} steps of ${episodes} episodes of ${shots + 1} examples of a task without its name, AdamW at ${baseRate}, cosine, clip 1`,
      ],
      ["learnt tasks", learntTasks.map((task) => `${task}: ${titleOf(task)}`).join("; ")],
      ["held-out tasks", heldOutTasks.map((task) => `${task}: ${titleOf(task)}`).join("; ")],
      [
        "training",
        `${steps} steps of ${instructions} instructions of all learnt tasks, AdamW, rates ${rates()}, cosine, clip 1`,
      ],
      [
        "few examples",
        `${shots}; LoRA of them ${fewSteps} steps; LoraHub over ${learntTasks.length} adapters of single tasks (rank 4, ${moduleSteps} steps), ${evaluations} losses, weights within 1.5, penalty 0.05`,
      ],
      ["test", `${tests} texts a task; an answer is right when every character is the likeliest`],
    ],
    tables: [
      {
        title: "All tasks learnt at once: right answers, %",
        columns: ["what is trained", "numbers", "share of the weights, %", "learnt tasks", "held-out tasks, zero-shot"],
        rows: names.map((name) => [
          name,
          String(first.learnt[name].trained),
          ((100 * first.learnt[name].trained) / first.weights).toFixed(2),
          over(({ learnt }) => learnt[name].learnt, learntTasks),
          over(({ learnt }) => learnt[name].heldOut, heldOutTasks),
        ]),
      },
      {
        title: "Held-out tasks, zero-shot: right answers, %",
        columns: ["what is trained", ...heldOutTasks.map(titleOf)],
        rows: names.map((name) => [
          name,
          ...heldOutTasks.map((task) => percent(results.map(({ learnt }) => learnt[name].heldOut[task]))),
        ]),
      },
      {
        title: `Held-out tasks with ${shots} examples: right answers, %`,
        columns: ["how they are used", "all", ...heldOutTasks.map(titleOf)],
        rows: fewNames.map((name) => [
          name,
          over(({ few }) => few[name], heldOutTasks),
          ...heldOutTasks.map((task) => percent(results.map(({ few }) => few[name][task]))),
        ]),
      },
    ],
    figures: [
      {
        name: "loss",
        title: "Training loss of all learnt tasks, first seed",
        picture: lineChart(
          names.map((name) => {
            const { losses } = first.learnt[name];
            const points = Array.from({ length: Math.ceil(losses.length / smoothing) }, (_, k) => {
              const some = losses.slice(k * smoothing, (k + 1) * smoothing);
              return [k * smoothing, mean(some)] as const;
            });
            return { name, points };
          }),
          { title: "Training loss", names: "below", xLabel: "step", yLabel: "nats a character of the answers" },
        ),
      },
    ],
    notes: [
      "The held-out tasks are pairs of operations of which each is learnt, alone and in other pairs; neither their names nor their answers occur in any training, that of the base model included.",
      "The base model knows the learnt tasks by their examples, and no name of a task. What adapters have to learn is which name means which.",
    ],
  };
}

const rates = () =>
  Object.entries(contestants)
    .map(([name, { rate }]) => `${rate} (${name})`)
    .join(", ");

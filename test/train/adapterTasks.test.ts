import { expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import {
  batchOf,
  episode,
  episodeWindow,
  exactShare,
  exampleOf,
  heldOutTasks,
  instruction,
  instructionWindow,
  learntTasks,
  titleOf,
  vocabSize,
} from "../../src/train/experiments/adapterTasks.js";

const outputsOf = (task: string) =>
  Array.from({ length: 200 }, (_, i) => {
    const { input, output } = exampleOf(task, new Random(i));
    return `${input}>${output}`;
  });

test("tasks do what they are called, and no two are the same function", () => {
  const pairs = (task: string) => outputsOf(task).map((text) => text.split(">"));
  for (const [input, output] of pairs("ru")) expect(output).toBe([...input].reverse().join("").toUpperCase());
  for (const [input, output] of pairs("sw")) expect(output).toBe([...input].sort().join("") + [...input].sort().at(-1));
  for (const [input, output] of pairs("tr")) expect(output).toBe(input[0] + [...input.slice(1)].reverse().join(""));
  for (const [input, output] of pairs("n")) expect(output).toBe(String(input.length));
  expect(titleOf("ru")).toBe("reverse, then upper case");
  const all = [...learntTasks, ...heldOutTasks];
  expect(new Set(all.map((task) => outputsOf(task).join())).size).toBe(all.length);
  // Every operation of a held-out task is learnt, alone and in another pair.
  for (const letter of heldOutTasks.join("")) {
    expect(learntTasks).toContain(letter);
    expect(learntTasks.some((task) => task.length === 2 && task.includes(letter))).toBe(true);
  }
});

test("answers are learnt, and nothing else; every text fits its window", () => {
  const example = { input: "abc", output: "CBA" };
  const { tokens, label } = batchOf([instruction("ru", example)], instructionWindow);
  // r u : a b c > C B A ;
  expect(tokens.values.slice(7, 11)).toEqual(label.values.slice(6, 10));
  expect(Array.from(label.values, (id) => id >= 0)).toEqual(
    Array.from({ length: instructionWindow }, (_, i) => i >= 6 && i < 10),
  );
  const two = episode([example, { input: "ab", output: "BA" }], "last");
  const learnt = batchOf([two], episodeWindow(2)).label.values;
  // abc>CBA; is 8 characters, ab> three more.
  expect(Array.from(learnt.keys()).filter((i) => learnt[i] >= 0)).toEqual([10, 11, 12]);
  const longest = { input: "abcd", output: "DCBAA" };
  expect(batchOf([instruction("rw", longest)], instructionWindow).label.values.filter((id) => id >= 0)).toHaveLength(6);
  const full = batchOf([episode(Array(4).fill(longest), "all")], episodeWindow(4)).label.values;
  expect(full.filter((id) => id >= 0)).toHaveLength(4 * 6);
});

test("a text counts when all of its answer is the likeliest", () => {
  const examples = [
    { input: "abc", output: "CBA" },
    { input: "ba", output: "AB" },
  ];
  const batch = batchOf(
    examples.map((example) => instruction("ru", example)),
    instructionWindow,
  );
  const logits = new Float32Array(2 * instructionWindow * vocabSize);
  const values = Array.from(batch.label.values);
  for (const [i, wanted] of values.entries()) if (wanted >= 0) logits[i * vocabSize + wanted] = 1;
  expect(exactShare(logits, batch, instructionWindow)).toBe(1);
  const last = values.findLastIndex((wanted) => wanted >= 0);
  // A tie is no answer.
  logits[last * vocabSize + ((values[last] + 1) % vocabSize)] = 1;
  expect(exactShare(logits, batch, instructionWindow)).toBe(0.5);
});

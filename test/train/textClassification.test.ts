import { expect, test } from "vitest";
import type { CellOptions } from "../../src/train/experiments/contract.js";
import { experiment } from "../../src/train/experiments/textClassification.js";
import type { State } from "../../src/train/state.js";

const texts: Record<string, string> = {
  "subj.train.tsv": `label\ttext\n${"a\tgood film here\nb\tthe law is old\n".repeat(60)}`,
  "subj.test.tsv": `label\ttext\n${"a\tgood film here\nb\tthe law is old\n".repeat(30)}`,
};

const run = (key: string, options: Partial<CellOptions> = {}) =>
  experiment.run(experiment.plan("smoke", 1, "").find((cell) => cell.key === key)!, {
    device: "wasm",
    readText: async (name) => texts[name],
    openModel: () => Promise.reject(new Error("there is no model")),
    state: { load: async () => undefined, save: async () => {} },
    ...options,
  });

test("two kinds of sentence are told apart by a tenth of each block's weights; global leaves the output layer nothing", async () => {
  const layered = await run("subj-layer-10-seed0");
  expect(layered).toMatchObject({ train: 100, test: 100, epochs: [expect.any(Number), 100], classes: 2 });
  expect(layered.outputZeros).toBe(0);
  // 3·16² + 2·16·32 weights.
  expect(layered.blockZeros).toEqual([1 - Math.round(0.1 * 1792) / 1792]);
  const global = await run("subj-global-10-seed0");
  expect(global).toMatchObject({ test: 50, outputZeros: 1 });
});

test.each([
  ["in the second epoch", ["train", "evaluate", "train"], 7],
  ["in the first test", ["train", "evaluate"], undefined],
  ["in the last test", ["train", "evaluate", "train", "evaluate"], 6],
])("a cell that is stopped %s goes on to the same result", async (_, stages, step) => {
  const whole = await run("subj-layer-10-seed0");
  const stop = new AbortController();
  let stored: State | undefined;
  const state = {
    load: async () => stored,
    async save(_step: number, state: State) {
      // The arrays are the run's own.
      stored = structuredClone(state);
    },
  };
  const seen: string[] = [];
  const onProgress: CellOptions["onProgress"] = ({ stage }) => {
    if (seen.at(-1) !== stage) seen.push(stage);
    if (seen.length === stages.length) stop.abort(new Error("stop"));
  };
  await expect(run("subj-layer-10-seed0", { state, signal: stop.signal, onProgress })).rejects.toThrow("stop");
  expect(seen).toEqual(stages);
  expect((stored?.training as State)?.step).toBe(step);
  expect(await run("subj-layer-10-seed0", { state })).toEqual(whole);
});

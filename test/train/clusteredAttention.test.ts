import { expect, test } from "vitest";
import { parseLabelledText, wordsOf } from "../../src/train/data/labelledText.js";
import { experiment } from "../../src/train/experiments/clusteredAttention.js";
import { experiment as timing } from "../../src/train/experiments/clusteredAttentionTime.js";
import type { CharactersResult } from "../../src/train/experiments/clusteredCharacters.js";
import { joinedTexts } from "../../src/train/experiments/clusteredClassifier.js";
import type { CellOptions } from "../../src/train/experiments/contract.js";
import type { State } from "../../src/train/state.js";

const texts: Record<string, string> = {
  "subj.train.tsv": `label\ttext\n${"a\tgood film here\nb\tthe law is old\n".repeat(60)}`,
  "subj.test.tsv": `label\ttext\n${"a\tgood film here\nb\tthe law is old\n".repeat(30)}`,
  "calib.txt": "she sells sea shells by the sea shore; ".repeat(20),
};

const run = (key: string, options: Partial<CellOptions> = {}) =>
  experiment.run(experiment.plan("smoke", 1, "").find((cell) => cell.key === key)!, {
    device: "wasm",
    readText: async (name) => texts[name],
    openModel: () => Promise.reject(new Error("there is no model")),
    state: { load: async () => undefined, save: async () => {} },
    ...options,
  });

/** What a run that is stopped after no step or one leaves behind. */
async function stateAfter(steps: 0 | 1, key: string): Promise<State> {
  const stop = new AbortController();
  if (steps === 0) stop.abort(new Error("stop"));
  let stored: State | undefined;
  const state = {
    load: async () => undefined,
    async save(_step: number, state: State) {
      // The arrays are the run's own.
      stored = structuredClone(state);
    },
  };
  // The first step is always reported.
  const onProgress: CellOptions["onProgress"] = ({ stage }) => stage === "train" && stop.abort(new Error("stop"));
  await expect(run(key, { state, signal: stop.signal, onProgress })).rejects.toThrow("stop");
  return stored!;
}

test.each(["subj-16-routing-seed0", "subj-64-clusterformer-seed0", "characters-nearest-seed0"])(
  "%s: a cell that is stopped goes on to the same figures, bit by bit",
  async (key) => {
    const whole = await run(key);
    const stopped = await stateAfter(1, key);
    expect(stopped.step).toBe(1);
    if (key.includes("clusterformer")) expect(Object.keys(stopped.weights as State)).toContain("clusters.0.centroids");
    else expect(Object.keys(stopped.control as State)).toContain(`centroids.${key.startsWith("subj") ? 0 : 1}`);
    const state = { load: async () => stopped, save: async () => {} };
    expect(await run(key, { state })).toEqual(whole);
  },
);

test.each([
  ["subj-16-routing-seed0", "control", "centroids.0"],
  ["characters-routing-seed0", "control", "centroids.1"],
  ["subj-16-clusterformer-seed0", "weights", "clusters.0.projection"],
  ["subj-16-clusterformer-seed0", "weights", "clusters.0.centroids"],
  ["characters-clusterformer-seed0", "weights", "clusters.1.projection"],
])("%s: a step moves the clusters: %s/%s", async (key, part, name) => {
  const [before, after] = [await stateAfter(0, key), await stateAfter(1, key)].map(
    (state) => (state[part] as State)[name] as Float32Array,
  );
  expect(before.length).toBe(after.length);
  expect(before.some((value, i) => value !== after[i])).toBe(true);
});

test("what routing owes to later characters is taken away for the second figure; nearest owes them nothing", async () => {
  const routing = (await run("characters-routing-seed0")) as CharactersResult;
  expect(routing.causalLoss).not.toBe(routing.testLoss);
  const nearest = (await run("characters-nearest-seed0")) as CharactersResult;
  expect(nearest.causalLoss).toBe(nearest.testLoss);
});

test("joined documents are long enough, of one class, without a sentence twice while there are others", () => {
  const sentences = parseLabelledText(
    `label\ttext\n${Array.from({ length: 20 }, (_, i) => `${i % 2 === 0 ? "x" : "y"}\tword${i} and word${i}`).join("\n")}`,
    "a.tsv",
  );
  const documents = joinedTexts(sentences, 6, 12, 3, "train");
  expect(documents.map(({ label }) => label)).toEqual(["x", "y", "x", "y", "x", "y"]);
  for (const { label, text } of documents) {
    const words = wordsOf(text);
    expect(words.length).toBe(12);
    const numbers = new Set(words.flatMap((word) => (word.startsWith("word") ? [Number(word.slice(4))] : [])));
    expect(numbers.size).toBe(4);
    for (const number of numbers) expect(number % 2 === 0 ? "x" : "y").toBe(label);
  }
  expect(joinedTexts(sentences, 6, 12, 3, "train")).toEqual(documents);
  expect(joinedTexts(sentences, 6, 12, 4, "train")).not.toEqual(documents);
  expect(wordsOf(joinedTexts(sentences, 1, 300, 3, "train")[0].text).length).toBe(300);
});

test("times are reported beside dense ones of the same round", async () => {
  const cells = timing.plan("smoke", 1, "").map((cell) => ({
    ...cell,
    device: "wasm" as const,
    result: {
      times: Object.fromEntries(
        ["dense", "local", "routing", "clusterformer", "neighbours"].map((kind, i) => [
          kind,
          { forward: [4, 40, 8], step: (cell.settings.length as number) > 16 ? [16 / 2 ** i] : [16 * 2 ** i] },
        ]),
      ),
    },
  }));
  const { tables, notes } = await timing.report(cells, "smoke");
  expect(tables[0].rows[0].slice(0, 4)).toEqual(["16", "8.0", "8.0", "1.00"]);
  expect(tables[1].rows[1].slice(0, 6)).toEqual(["64", "16.0", "8.0", "2.00", "4.0", "4.00"]);
  // Two heads: 3 · 8 and 8 of 64 keys.
  expect(tables[2].rows[1]).toEqual(["64", "100.0", "37.5", "25.0", "12.5", "37.5"]);
  expect(notes[0]).toContain("local heads only 64, Routing Transformer 64");
});

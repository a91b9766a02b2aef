import { describe, expect, it } from "vitest";
import { FormatError, UsageError } from "../../core/index.js";
import type { Tokenizer } from "../../text/index.js";
import { startEngine } from "../engine/engine.js";
import { crossEntropy, maskedCrossEntropy } from "../engine/layers.js";
import { tracedObjective } from "../engine/tracedObjective.js";
import { parseRecords, RecordWindows, tokenizeRecords } from "./records.js";

/** A token for every character; 0 ends a text. */
const tokenizer = {
  encode: (text: string) => Uint32Array.from(text, (c) => c.charCodeAt(0) - 96),
  idOf: () => 0,
} as unknown as Tokenizer;

describe("records", () => {
  it("that are cut are learnt without an end", async () => {
    const { labels } = await tokenizeRecords(tokenizer, [{ prompt: "a", response: "b", unfinished: true }], 3);
    expect([...labels]).toEqual([2, -1, -1]);
  });

  it("are learnt behind their prompts, and that they end", async () => {
    const records = parseRecords('{"prompt":"ab","response":"cd"}\n\n{"prompt":"","response":"abcdefgh"}\n', "f");
    const { tokens, labels, cut } = await tokenizeRecords(tokenizer, records, 6);
    expect([...tokens]).toEqual([1, 2, 3, 4, 0, 0, 1, 2, 3, 4, 5, 6]);
    expect([...labels]).toEqual([-1, 3, 4, 0, -1, -1, 2, 3, 4, 5, 6, 7]);
    expect(cut).toBe(1);
  });

  it("are learnt with what leads to the response, and not with what is shown before", async () => {
    const record = { prompt: "c", response: "e", rationale: "d", demonstrations: [{ prompt: "a", response: "b" }] };
    const { labels } = await tokenizeRecords(tokenizer, [record], 9);
    // "ab", two line breaks, "c" are given.
    expect([...labels]).toEqual([-1, -1, -1, -1, 4, 5, 0, -1, -1]);
  });

  it("make batches of whole records, every one once an epoch", async () => {
    const records = ["a", "b", "c", "d"].map((response) => ({ prompt: "z", response }));
    const windows = new RecordWindows(await tokenizeRecords(tokenizer, records, 3), 2, 1);
    const seen = [0, 1].flatMap((step) => {
      const { tokens, label } = windows.batch(step);
      expect([tokens.shape, label.shape]).toEqual([[6], [6]]);
      return [...label.values].filter((_, i) => i % 3 === 0);
    });
    expect(seen.sort()).toEqual([1, 2, 3, 4]);
    expect([...windows.inOrder(3)]).toHaveLength(1);
    expect(
      () =>
        new RecordWindows(
          { ...windows, tokens: new Int32Array(3), labels: new Int32Array(3), window: 3, cut: 0 },
          2,
          1,
        ),
    ).toThrow(UsageError);
  });

  it.each([
    ["", /no records/],
    ["{", /line 1.*not JSON/s],
    ['{"prompt":"a","response":"b"}\n{"prompt":"a"}', /line 2.*response/s],
    ['{"prompt":"a","response":"b","x":1}', /line 1/],
    ['{"prompt":"a","response":""}', /line 1.*response/s],
    ['{"prompt":"a","response":"b","response":"c"}', /occurs twice/],
  ])("refuse %j", (content, message) => {
    const parse = () => parseRecords(content, "f.jsonl");
    expect(parse).toThrow(FormatError);
    expect(parse).toThrow(message);
  });

  it("say when a prompt leaves no room", async () => {
    const long = tokenizeRecords(tokenizer, [{ prompt: "abcd", response: "e" }], 3);
    await expect(long).rejects.toThrow(/record 1: its prompt has 4 tokens/);
  });
});

it("the masked loss is the mean over the rows that have a label", async () => {
  await startEngine("cpu");
  const lossOf = async (loss: typeof crossEntropy, rows: readonly number[], labels: readonly number[]) => {
    const logits = Float32Array.from(rows.flatMap((row) => [row, 1, -row]));
    using objective = tracedObjective({
      parameters: [{ name: "z", shape: [rows.length, 3], layer: "", role: "dense" }],
      predict: ({ z }) => z,
      loss: ({ z }, { label }) => ({ loss: loss(z, label) }),
    });
    const batch = { label: { shape: [labels.length], values: Int32Array.from(labels) } };
    return objective.lossAndGradients(new Map([["z", logits]]), batch);
  };
  const masked = await lossOf(maskedCrossEntropy, [0.5, 2, -1, 0.25], [2, -1, 0, -1]);
  const alone = await lossOf(crossEntropy, [0.5, -1], [2, 0]);
  expect(masked.loss).toBeCloseTo(alone.loss, 6);
  const [found, expected] = [masked, alone].map(({ gradients }) => [...gradients.get("z")!]);
  for (const [i, row] of [0, 2].entries()) {
    for (let c = 0; c < 3; c++) expect(found[row * 3 + c]).toBeCloseTo(expected[i * 3 + c], 6);
  }
  expect([...found.slice(3, 6), ...found.slice(9)].every((slope) => slope === 0)).toBe(true);
  expect((await lossOf(maskedCrossEntropy, [1, 2], [-1, -1])).loss).toBeCloseTo(0, 12);
});

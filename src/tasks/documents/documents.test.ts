import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { readJsonDocuments, readJsonLines } from "./jsonLines.js";
import { readParquet } from "./parquet.js";

const fixture = (name: string) =>
  new Uint8Array(readFileSync(new URL(`../../../test/golden/lm-eval/${name}`, import.meta.url)));
const utf8 = (text: string) => new TextEncoder().encode(text);

describe("Parquet files", () => {
  test("give lists, groups, nulls and numbers as JSON has them", async () => {
    const rows = await readParquet(fixture("nested.parquet"), "n.parquet");
    expect(rows.length).toBe(40);
    expect(rows[0]).toEqual({
      id: 0,
      question: "What is 0?",
      choices: { text: ["0", "1 é"], label: ["A", "B"] },
      note: "a note",
      score: 0,
      big: String(2n ** 60n),
      right: true,
      empty: [],
    });
    expect(rows[39]).toMatchObject({ id: 39, choices: { text: ["39", "40 é", "none"] }, note: "a note", score: 9.75 });
    expect(rows[1].note).toBeNull();
  });

  test("of another compression are refused by name", async () => {
    await expect(readParquet(fixture("zstd.parquet"), "z.parquet")).rejects.toThrow(
      /z\.parquet: \w+: compressed by ZSTD/,
    );
  });

  test("that repeat a value for ever are refused before they are decoded", async () => {
    const bytes = fixture("nested.parquet");
    // The first run of the levels of a column becomes one of 2³⁰ values.
    bytes.set([0xfe, 0xff, 0xff, 0xff, 0x0f], 203);
    await expect(readParquet(bytes, "n.parquet")).rejects.toThrow(/n\.parquet: [\w.]+: runs of more than \d+ values/);
  });
});

describe("JSON lines", () => {
  test("are documents, with the line where one is none", () => {
    expect(readJsonLines(utf8('\ufeff{"a":1}\n\n{"a":[2]}'), "d.jsonl")).toEqual([{ a: 1 }, { a: [2] }]);
    expect(() => readJsonLines(utf8('{"a":1}\n[1]'), "d.jsonl")).toThrow(/d\.jsonl, line 2: no JSON object/);
    expect(() => readJsonLines(utf8('{"a":1}\n{"a"'), "d.jsonl")).toThrow(/d\.jsonl, line 2: not JSON/);
  });

  test("or one list of them", () => {
    expect(readJsonDocuments(utf8(' [{"a":1},{"a":2}]'), "d.json")).toEqual([{ a: 1 }, { a: 2 }]);
    expect(() => readJsonDocuments(utf8("[1]"), "d.json")).toThrow(/d\.json: 0: no JSON object/);
  });
});

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { memoryFiles } from "../io/index.js";
import { loadTokenizer } from "./tokenizer.js";

interface Golden {
  texts: string[];
  cases: { step: object; pieces: string[][] }[];
}
const golden: Golden = JSON.parse(
  readFileSync(new URL("fixtures/preTokenizers.json", import.meta.url).pathname, "utf8"),
);

/** A tokenizer whose tokens are the pieces that its pre-tokenizer makes. */
function load(step: object, pieces: readonly string[], extra: object = {}) {
  const vocab = Object.fromEntries(["[UNK]", ...new Set(pieces)].map((piece, id) => [piece, id]));
  const parts = { normalizer: null, post_processor: null, decoder: null, added_tokens: [] };
  const model = { type: "WordLevel", vocab, unk_token: "[UNK]" };
  const definition = { ...parts, pre_tokenizer: step, model, ...extra };
  return loadTokenizer(
    memoryFiles("m", new Map([["tokenizer.json", new TextEncoder().encode(JSON.stringify(definition))]])),
  );
}

it.each(golden.cases.map(({ step, pieces }) => [JSON.stringify(step), step, pieces] as const))(
  "cuts texts as the Rust library does: %s",
  async (_, step, expected) => {
    const tokenizer = await load(step, expected.flat());
    expect(tokenizer.warnings).toEqual([]);
    for (const [i, text] of golden.texts.entries()) {
      const pieces = Array.from(tokenizer.encode(text), (id) => tokenizer.tokenOf(id));
      expect(pieces, text).toEqual(expected[i].filter((piece) => piece !== ""));
    }
  },
);

describe("Metaspace", () => {
  it("that says it in the old way puts no mark in front, and takes none away", async () => {
    const step = { type: "Metaspace", replacement: "▁", add_prefix_space: false };
    const tokenizer = await load(step, ["a", "▁b"], { decoder: step });
    expect(tokenizer.decode(tokenizer.encode("a b"))).toBe("a b");
    expect(tokenizer.decode(tokenizer.encode(" b"))).toBe(" b");
  });
});

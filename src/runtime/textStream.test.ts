import { expect, test } from "vitest";
import { memoryFiles } from "../io/index.js";
import { loadTokenizer } from "../text/index.js";
import { TextStream } from "./textStream.js";

const tokens = ["</s>", "▁was", "▁the", "▁man"];
const definition = {
  model: { type: "BPE", vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges: [] },
  added_tokens: [{ id: 0, content: "</s>", special: true }],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: {
    type: "Sequence",
    decoders: [
      { type: "Replace", pattern: { String: "▁" }, content: " " },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ],
  },
};

test("a stop string that begins with the first space of a continuation ends it", async () => {
  const bytes = new TextEncoder().encode(JSON.stringify(definition));
  const tokenizer = await loadTokenizer(memoryFiles("m", new Map([["tokenizer.json", bytes]])));
  const answer = [2, 3, 0];
  const streamed = (stop: string[], after?: number[]) => {
    const stream = new TextStream(tokenizer, stop, after);
    return { text: answer.map((id) => stream.push(id)).join("") + stream.flush(), stopped: stream.stopped };
  };
  expect(streamed([], [1])).toEqual({ text: " the man", stopped: false });
  expect(streamed([" the"], [1])).toEqual({ text: "", stopped: true });
  expect(streamed([" the"])).toEqual({ text: "the man", stopped: false });
});

import { expect, test } from "vitest";
import { families, parseModelConfig } from "../../src/arch/index.js";
import { createFile, memorySinks } from "../../src/io/byteSink.js";
import { openCheckpoint } from "../../src/io/checkpoint.js";
import { ggufFiles } from "../../src/io/gguf/files.js";
import { writeGguf } from "../../src/io/gguf/writeGguf.js";
import { memorySource } from "../../src/io/memory.js";
import { preTokenizers } from "../../src/io/tokenizer/preTokenizers.js";
import { openBackend } from "../../src/kernels/index.js";
import { loadModel } from "../../src/model/index.js";
import { architectureGolden, architectureNames, logitsOf, negativeLogLikelihood } from "../golden/golden.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

const written = await Promise.all(
  architectureNames.map(async (name) => {
    const { config } = await MemoryCheckpoint.golden(name);
    return families[String(config.model_type)].gguf === undefined ? undefined : name;
  }),
).then((names) => names.filter((name) => name !== undefined));

test("which families are written and read as GGUF", () => {
  expect(written).toEqual(["llama", "llama3-rope", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "gemma2", "gemma3"]);
});

// A file that names a tensor, a row or a key otherwise than it is read gives another model.
test.each(written)("%s: what runs from a GGUF file gives the golden figures", async (name) => {
  const checkpoint = await MemoryCheckpoint.golden(name);
  const config = parseModelConfig(checkpoint.config, "config.json");
  const vocab = Object.fromEntries(Array.from({ length: config.vocabSize }, (_, id) => [`t${id}`, id]));
  const model = { type: "BPE", vocab, merges: [] };
  const tokenizer = { normalizer: null, pre_tokenizer: preTokenizers[0].rules, model, added_tokens: [] };
  const source = Object.assign(checkpoint, {
    readJson: async (file: string) => (file === "tokenizer.json" ? tokenizer : undefined),
  });
  const { ids, nll } = architectureGolden(name);
  using backend = await openBackend("reference");
  for (const [type, tolerance] of [
    ["f32", 2e-3],
    ["f16", 2e-2],
  ] as const) {
    const files = new Map<string, Uint8Array>();
    await createFile(memorySinks(files), "m.gguf", (sink) => writeGguf(sink, source, config, { type, name }));
    const bytes = files.get("m.gguf")!;
    const back = await openCheckpoint(await ggufFiles("m.gguf", async () => memorySource("m.gguf", bytes)));
    expect((back.config as { model_type: string }).model_type).toBe(config.modelType);
    using loaded = await loadModel(back, backend, { weights: "f32" });
    const rows = await logitsOf(loaded, ids);
    for (const [i, expected] of nll.entries()) {
      expect(Math.abs(negativeLogLikelihood(rows[i], ids[i + 1]) - expected), `${type}, token ${i}`).toBeLessThan(
        tolerance,
      );
    }
    await back.close();
  }
});

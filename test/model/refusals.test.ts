import { expect, test } from "vitest";
import { parseModelConfig, readModelSpec } from "../../src/arch/index.js";
import { openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { describeDecoder } from "../../src/model/index.js";
import { decoder } from "../../src/train/models/decoder.js";
import { path } from "../golden/golden.js";

test.each(["phi3", "gemma2", "gemma3", "gpt2", "opt", "gpt_neox"])(
  "%s runs and is compressed; training refuses it by name",
  async (name) => {
    const checkpoint = await openCheckpoint(directoryFiles(path(`arch/${name}`)));
    const described = await describeDecoder(checkpoint);
    expect(() => decoder(described.config, [], 8)).toThrow(/run, but cannot be trained yet; those of llama, mistral/);
    await checkpoint.close();
  },
);

test("a SmolLM3 with a layer that does not rotate is not taken for a Llama", async () => {
  const checkpoint = await openCheckpoint(directoryFiles(path("arch/smollm3")));
  const raw = { ...(checkpoint.config as object), no_rope_layers: [1, 0] };
  await checkpoint.close();
  const rotates = readModelSpec(raw, "config.json").blocks.map(({ steps }) =>
    steps.some((step) => step.do === "rotate"),
  );
  expect(rotates).toEqual([true, false]);
  expect(() => decoder(parseModelConfig(raw, "config.json"), [], 8)).toThrow(/cannot be trained yet/);
});

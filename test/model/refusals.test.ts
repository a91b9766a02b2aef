import { expect, test } from "vitest";
import { readModelSpec } from "../../src/arch/index.js";
import { openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { path } from "../golden/golden.js";

test("a SmolLM3 with a layer that does not rotate is not taken for a Llama", async () => {
  const checkpoint = await openCheckpoint(directoryFiles(path("arch/smollm3")));
  const raw = { ...(checkpoint.config as object), no_rope_layers: [1, 0] };
  await checkpoint.close();
  const rotates = readModelSpec(raw, "config.json").blocks.map(({ steps }) =>
    steps.some((step) => step.do === "rotate"),
  );
  expect(rotates).toEqual([true, false]);
});

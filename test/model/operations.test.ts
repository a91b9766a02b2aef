import { describe, expect, test } from "vitest";
import { openBackend } from "../../src/kernels/index.js";
import type { ActivationThresholds } from "../../src/model/index.js";
import { load, path } from "../golden/golden.js";
import { roles } from "../support/gatedBlock.js";
import { recording } from "./recordingBackend.js";

/** Families whose sequence of operations was written down before the forward pass became an interpreter. */
const families = ["llama", "mistral", "mixtral", "qwen2", "qwen3"];

const byRole = (layer: number) => Object.fromEntries(roles.map((role, r) => [role, (layer + r) / 64]));
const setting: ActivationThresholds = { maps: [byRole(0), byRole(1)] };
const tokens = Uint32Array.of(3, 14, 15, 92, 65);

describe.each([
  ["one by one", false],
  ["fused", true],
])("operations %s", (how, fused) => {
  test.each(families)("%s", async (family) => {
    const { backend, take } = recording(await openBackend("reference"), fused);
    const model = await load(path(`arch/${family}`), backend, "f32");
    take();
    const text: string[] = [];
    for (const [name, thresholds] of [
      ["dense", undefined],
      ["thresholds", setting],
      ["thresholds and a gate", { ...setting, gate: [0.25, 0] }],
    ] as const) {
      const cache = model.createCache(16);
      backend.release((await model.forward(tokens, cache, 0, { sparseFrom: 2, logits: "all", thresholds }))!);
      text.push(`# ${name}, prefill`, ...take());
      backend.release((await model.forward(Uint32Array.of(35), cache, 5, { thresholds }))!);
      text.push(`# ${name}, decode`, ...take());
      const tap = { sites: ["mlpHidden"], onActivation: async () => {} };
      await model.forward(Uint32Array.of(36), cache, 6, { tap, logits: "none", thresholds });
      text.push(`# ${name}, decode, watched`, ...take());
    }
    await expect(`${text.join("\n")}\n`).toMatchFileSnapshot(`operations/${family} ${how}.txt`);
    backend[Symbol.dispose]();
  });
});

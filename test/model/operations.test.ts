import { describe, expect, test } from "vitest";
import { openBackend } from "../../src/kernels/index.js";
import type { ActivationThresholds, Projection } from "../../src/model/index.js";
import { load, path } from "../golden/golden.js";
import { recording } from "./recordingBackend.js";

/** Families whose sequence of operations was written down before the forward pass became an interpreter. */
const families = ["llama", "mistral", "mixtral", "qwen2", "qwen3"];

const roles: readonly Projection[] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
const byRole = (layer: number) =>
  Object.fromEntries(roles.map((role, r) => [role, (layer + r) / 64])) as Record<Projection, number>;
const thresholds: ActivationThresholds = { projections: [byRole(0), byRole(1)] };
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
    for (const [name, setting] of [
      ["dense", undefined],
      ["thresholds", thresholds],
      ["thresholds and a gate", { ...thresholds, gate: [0.25, 0] }],
    ] as const) {
      model.thresholds = setting;
      const cache = model.createCache(16);
      backend.release((await model.forward(tokens, cache, 0, { sparseFrom: 2, logits: "all" }))!);
      text.push(`# ${name}, prefill`, ...take());
      backend.release((await model.forward(Uint32Array.of(35), cache, 5))!);
      text.push(`# ${name}, decode`, ...take());
      const tap = { sites: ["mlpHidden" as const], onActivation: async () => {} };
      await model.forward(Uint32Array.of(36), cache, 6, { tap, logits: "none" });
      text.push(`# ${name}, decode, watched`, ...take());
    }
    await expect(`${text.join("\n")}\n`).toMatchFileSnapshot(`operations/${family} ${how}.txt`);
    backend[Symbol.dispose]();
  });
});

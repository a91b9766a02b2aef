import { describe, expect, test } from "vitest";
import { openBackend } from "../../src/kernels/index.js";
import { loadModel } from "../../src/model/index.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { architectureGolden, greedyContinuation, negativeLogLikelihood } from "./golden.js";
import passes from "./ropes.json" with { type: "json" };

// Whole passes of golden checkpoints whose config scales the rotary embedding, against transformers 5.17 in f32. Where
// frequencies change as a sequence grows there is no continuation to compare: keys of different frequencies do not fit.
describe.each(["reference", "wasm"] as const)("%s", (id) => {
  test.each(passes)("$name: NLL and logits within 2e-3, the same greedy tokens", async (golden) => {
    const checkpoint = await MemoryCheckpoint.golden(golden.base);
    checkpoint.config = { ...(checkpoint.config as object), ...golden.config };
    using backend = await openBackend(id);
    using model = await loadModel(checkpoint, backend, { weights: "f32" });
    const { ids } = architectureGolden(golden.base);
    using cache = model.createCache(ids.length, { allowBeyondTraining: true });
    const logits = (await model.forward(ids, cache, 0, { logits: "all" }))!;
    const values = await backend.read(logits);
    const rows = Array.from(ids, (_, r) => values.subarray(r * logits.cols, (r + 1) * logits.cols));
    backend.release(logits);
    for (const [i, nll] of golden.nll.entries()) {
      expect(Math.abs(negativeLogLikelihood(rows[i], ids[i + 1]) - nll), `token ${i}`).toBeLessThan(2e-3);
    }
    for (const [token, logit] of Object.entries(golden.top)) {
      expect(Math.abs(rows.at(-1)![Number(token)] - logit), `logit of ${token}`).toBeLessThan(2e-3);
    }
    if (golden.greedy === undefined) return;
    expect(await greedyContinuation(model, ids, golden.greedy.length)).toEqual(golden.greedy);
  });
});

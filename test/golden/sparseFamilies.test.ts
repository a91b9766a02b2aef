import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isEncoder } from "../../src/arch/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import { type ActivationThresholds, type LoadModelOptions, loadModel, type Model } from "../../src/model/index.js";
import { calibrateActivationSparsity, toThresholds } from "../../src/pipeline/index.js";
import { classify } from "../../src/runtime/index.js";
import { calibration, compress, type JobInput, randomTokens, relativeDifference, window } from "../compress/support.js";
import { backendsUnderTest } from "../contract/backendsUnderTest.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { covered } from "./covered.js";
import { logitsOf } from "./golden.js";

/** What is made of every family's golden checkpoint, and how it is held in memory. */
const made = {
  "half of the weights, in bit masks": {
    stages: [{ type: "prune", method: "magnitude", pattern: 0.5 }],
    held: { weights: "bf16", structure: "bitmask" },
  },
  "2:4 in int8": {
    stages: [
      { type: "prune", method: "magnitude", pattern: "2:4" },
      { type: "quantize", method: "rtn", options: { bits: 8 } },
    ],
    held: { weights: "q8", structure: "2:4" },
  },
  int4: {
    stages: [{ type: "quantize", method: "rtn", options: { bits: 4 } }],
    held: { weights: "q4" },
  },
} as const satisfies Record<string, { stages: JobInput["stages"]; held: LoadModelOptions }>;

/** Logits of 12 tokens one by one, as decoding meets them; of an encoder those of its labels. */
async function decoded(model: Model, thresholds?: ActivationThresholds): Promise<Float32Array> {
  const tokens = randomTokens(4, 12);
  if (isEncoder(model.config.spec)) return (await classify(model, tokens, { thresholds })).logits;
  const rows = await logitsOf(model, tokens, 1, { thresholds });
  return Float32Array.from(rows.flatMap((row) => [...row]));
}

/** On both backends, with all inputs and with those above thresholds of TEAL found on the reference backend: largest difference over the largest logit. */
async function differences(backend: Backend, family: string, name: keyof typeof made) {
  const { stages, held } = made[name];
  const { opened } = await compress(await MemoryCheckpoint.golden(family), { stages: [...stages] });
  using reference = await openBackend("reference");
  using expected = await loadModel(opened, reference, held);
  using model = await loadModel(opened, backend, held);
  const options = { sparsities: [0.4], method: "teal", window } as const;
  const thresholds = toThresholds((await calibrateActivationSparsity(expected, calibration, options)).records[0]);
  const [dense, sparse] = [await decoded(expected), await decoded(expected, thresholds)];
  return {
    dense: relativeDifference(await decoded(model), dense),
    sparse: relativeDifference(await decoded(model, thresholds), sparse),
    // What the thresholds change.
    changed: relativeDifference(sparse, dense),
    chooses: expected.config.spec.blocks.some(({ steps }) => steps.some((step) => step.do === "choose")),
  };
}

const others = backendsUnderTest.filter(({ name }) => /^(wasm baseline, 1 thread|wasm with native kernels.*|webgpu)$/.test(name));

describe.each(others)("$name", ({ name: backendName, create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
  });
  afterAll(() => backend[Symbol.dispose]());

  // A GPU compiles kernels for every form, which takes a minute for one form of all families; it multiplies inputs as they are.
  const forms = backendName === "webgpu" ? (["2:4 in int8"] as const) : (Object.keys(made) as (keyof typeof made)[]);
  const cases = covered.compressed.flatMap((family) => forms.map((form) => ({ family, form })));

  test.each(cases)("$family, $form: dense and with the thresholds of TEAL as on the reference backend", async ({ family, form }) => {
    const { dense, sparse, changed, chooses } = await differences(backend, family, form);
    expect(changed).toBeGreaterThan(0.01);
    if (backendName === "webgpu" || made[form].held.weights === "bf16") {
      expect(dense).toBeLessThan(1e-5);
      expect(sparse).toBeLessThan(1e-5);
    } else {
      // With codes a CPU rounds the inputs too, and then other inputs lie above a threshold: only the whole can be compared.
      // Where one unit of a block is chosen, another may be the largest of nearly equal ones: forms that round nothing hold those.
      expect(dense).toBeLessThan(chooses ? 1 : 0.05);
    }
  });
});

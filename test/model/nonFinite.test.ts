import { afterAll, expect, test } from "vitest";
import { FormatError, NonFiniteError, RarefyError } from "../../src/core/index.js";
import { evaluateQuality, measureSpeed } from "../../src/eval/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import { createBackend } from "../../src/kernels/wasm/index.js";
import { loadModel, type Model, type Structure, structures } from "../../src/model/index.js";
import type { WeightFormatId } from "../../src/pack/index.js";
import { calibrateActivationSparsity } from "../../src/pipeline/index.js";
import { collect, generate } from "../../src/runtime/index.js";
import { MemoryCheckpoint } from "./memoryCheckpoint.js";

const opened: Backend[] = [];
afterAll(() => {
  for (const backend of opened) backend[Symbol.dispose]();
});
const backends = {
  reference: () => openBackend("reference"),
  wasm: () => createBackend({ threads: 1 }),
};

const tokens = Uint32Array.from({ length: 24 }, (_, i) => (i * 37) % 200);
const text = { tokens, sha256: "0" };

/** Everything that makes a result of a model. */
const uses: Record<string, (model: Model) => Promise<unknown>> = {
  generate: (model) => collect(generate(model, tokens, { maxTokens: 2 })),
  "generate, sampled": (model) => collect(generate(model, tokens, { maxTokens: 2, temperature: 1, seed: 1 })),
  evaluateQuality: (model) => evaluateQuality([{ name: "m", model }], text, { window: 8, maxWindows: 2 }),
  measureSpeed: (model) =>
    measureSpeed([{ name: "m", model }], tokens, { prefillTokens: 4, decodeTokens: 2, repeats: 1 }),
  calibrate: (model) =>
    calibrateActivationSparsity(model, text, { sparsities: [0.5], window: 8, calibrationWindows: 1 }),
};

async function llama(change: (checkpoint: MemoryCheckpoint) => void): Promise<MemoryCheckpoint> {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  change(checkpoint);
  return checkpoint;
}

async function load(
  checkpoint: MemoryCheckpoint,
  id: keyof typeof backends,
  weights: WeightFormatId,
  structure?: Structure,
) {
  const backend = await backends[id]();
  opened.push(backend);
  return loadModel(checkpoint, backend, { weights, ...(structure && { structure }) });
}

/** Sets one number of a tensor. */
const put = (name: string, index: number, value: number) => (checkpoint: MemoryCheckpoint) => {
  const values = checkpoint.values(name);
  values[index] = value;
  checkpoint.set(name, checkpoint.tensors.get(name)!.shape, values);
};

const places = [
  "model.embed_tokens.weight",
  "model.layers.0.mlp.up_proj.weight",
  "model.layers.0.self_attn.v_proj.weight",
  "model.layers.1.input_layernorm.weight",
  "model.layers.1.mlp.down_proj.weight",
  "model.norm.weight",
];

test.each(places)("one NaN or infinity in %s ends every use of the model with an error that names it", async (name) => {
  const backend = await backends.wasm();
  opened.push(backend);
  for (const value of [Number.NaN, Number.NEGATIVE_INFINITY]) {
    const model = await load(await llama(put(name, 5, value)), "wasm", "bf16");
    expect(model.damage).toBeInstanceOf(FormatError);
    expect(model.damage?.message).toContain(`${name}: `);
    expect(model.damage?.message).toContain(`5 is ${value}`);
    for (const [use, run] of Object.entries(uses)) {
      await expect(run(model), use).rejects.toBe(model.damage);
    }
  }
});

test.each(["reference", "wasm"] as const)("%s: found in every weight format and layout", async (id) => {
  const name = "model.layers.1.mlp.up_proj.weight";
  const checkpoint = await llama((c) => {
    // 2:4, so that every layout can hold it.
    for (const [each, { shape }] of c.tensors) {
      if (each.endsWith("_proj.weight"))
        c.set(
          each,
          shape,
          c.values(each).map((v, i) => (i % 4 < 2 ? v : 0)),
          "BF16",
        );
    }
    put(name, 5, Number.NaN)(c);
  });
  for (const weights of ["f32", "bf16", "q8", "q4"] as const) {
    for (const structure of structures.filter((s) => s !== "auto")) {
      const model = await load(checkpoint, id, weights, structure);
      expect(model.damage?.message, `${weights} ${structure}`).toContain(name);
      // By the model's own arithmetic nothing is left of its logits.
      using cache = model.createCache(tokens.length);
      const logits = (await model.forward(tokens, cache, 0))!;
      const values = await model.backend.read(logits);
      expect(values.subarray(0, model.config.vocabSize).some(Number.isFinite), `${weights} ${structure}`).toBe(false);
    }
  }
});

test.each([
  ["model.layers.1.mlp.up_proj.weight", "layer 1"],
  ["model.layers.0.self_attn.o_proj.weight", "layer 0"],
])("finite weights in %s whose products overflow end in an error that names %s", async (name, layer) => {
  const huge = await llama((c) => {
    const { shape } = c.tensors.get(name)!;
    c.set(
      name,
      shape,
      c.values(name).map((value) => Math.sign(value || 1) * 3e38),
    );
  });
  for (const weights of ["f32", "bf16", "q8"] as const) {
    const model = await load(huge, "wasm", weights);
    expect(model.damage).toBeUndefined();
    for (const [use, run] of Object.entries(uses)) {
      const error = await run(model).then(
        () => undefined,
        (reason: Error) => reason,
      );
      expect(error?.message, `${weights} ${use}`).toContain(layer);
      // Calibration counts activations, and says it as its histograms do.
      expect(error, `${weights} ${use}`).toBeInstanceOf(use === "calibrate" ? RarefyError : NonFiniteError);
    }
  }
});

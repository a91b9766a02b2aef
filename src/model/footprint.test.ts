import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { findStep, type LinearSpec, linearsOf, parseModelConfig } from "../arch/index.js";
import { type Checkpoint, openCheckpoint } from "../io/index.js";
import { directoryFiles } from "../io/index.node.js";
import { openBackend } from "../kernels/index.js";
import { type WeightFormatId, weightFormats } from "../pack/index.js";
import { elementCount, type TensorInfo } from "../tensor/index.js";
import { countParameters, embeddingFormat, kvBytesPerPosition, packedMatrixBytes } from "./footprint.js";
import { describeDecoder, loadModel } from "./loadModel.js";

const directory = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));

async function describe(path: string) {
  const checkpoint = await openCheckpoint(directoryFiles(directory(path)));
  return { checkpoint, ...(await describeDecoder(checkpoint)) };
}

/** Tied and untied embeddings, some of the experts for a token, and latents in place of keys and values. */
const golden = ["qwen3", "mixtral", "olmoe", "qwen3_moe", "gpt_oss", "deepseek_v3"].map(
  (name) => `test/golden/arch/${name}`,
);
const models = ["models/tiny-6m", ...golden];

test.each(models)("the parameters of %s add up to what its files hold", async (path) => {
  const { checkpoint, config } = await describe(path);
  const tensors = [...checkpoint.tensors.values()];
  const elements = (some: readonly TensorInfo[]) => some.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const stored = elements(tensors);
  const { total, active, activeExperts, ...kinds } = countParameters(config.spec, checkpoint.tensors);
  expect(total).toBe(stored);
  expect(Object.values(kinds).reduce((sum, count) => sum + count)).toBe(stored);
  const { count, perToken } = config.experts ?? { count: 1, perToken: 1 };
  const ofExperts = tensors.filter(({ name }) => name.includes(".experts.") && !name.endsWith("_bias"));
  const lookedUp = config.tiedEmbeddings ? 0 : config.vocabSize * config.hiddenSize;
  expect(active).toBe(stored - lookedUp - elements(ofExperts) * (1 - perToken / count));
  expect(kinds.experts - activeExperts).toBe(elements(ofExperts) * (1 - perToken / count));
  await checkpoint.close();
});

const formats = Object.keys(weightFormats) as WeightFormatId[];
test.each(models.flatMap((path) => formats.map((format) => [path, format] as const)))(
  "the matrices of %s in %s take what is foretold",
  async (path, format) => {
    const { checkpoint, config } = await describe(path);
    using backend = await openBackend("reference");
    using model = await loadModel(checkpoint, backend, { weights: format });
    const foretold = packedMatrixBytes(checkpoint, config.spec, format);
    using cache = model.createCache(3);
    const logits = await model.forward(Uint32Array.of(1), cache, 0);
    backend.release(logits!);
    expect(backend.takeCounters().weightBytesRead).toBe(foretold.perToken);
    expect(model.weightBytes.loaded - foretold.loaded).toBe(
      countParameters(config.spec, checkpoint.tensors).vectors * 4,
    );
    expect(cache.byteLength).toBe(kvBytesPerPosition(config) * 3);
    await checkpoint.close();
  },
);

test("untied embeddings keep their stored precision", async () => {
  const { checkpoint, config } = await describe("test/golden/arch/qwen3");
  await checkpoint.close();
  const untied = config.spec;
  const { tensor: name, shape } = untied.embedding.table;
  const stored = (dtype: TensorInfo["dtype"]) =>
    ({ tensors: new Map([[name, { name, shape, dtype }]]) }) as unknown as Checkpoint;
  expect(embeddingFormat(stored("BF16"), untied, "q4")).toBe("bf16");
  expect(embeddingFormat(stored("F16"), untied, "q4")).toBe("bf16");
  expect(embeddingFormat(stored("F16"), untied, "f32")).toBe("f32");
  expect(embeddingFormat(stored("F32"), untied, "q4")).toBe("f32");
});

/** config.json of DeepSeek-V3, as far as it is a matter of sizes. */
const deepseekV3 = {
  model_type: "deepseek_v3",
  first_k_dense_replace: 3,
  hidden_size: 7168,
  intermediate_size: 18432,
  kv_lora_rank: 512,
  max_position_embeddings: 163840,
  moe_intermediate_size: 2048,
  n_group: 8,
  n_routed_experts: 256,
  n_shared_experts: 1,
  num_attention_heads: 128,
  num_experts_per_tok: 8,
  num_hidden_layers: 61,
  num_key_value_heads: 128,
  num_nextn_predict_layers: 1,
  q_lora_rank: 1536,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  topk_group: 4,
  v_head_dim: 128,
  vocab_size: 129280,
};

test("DeepSeek-V3 by its config alone: 671.0 B parameters, 36.6 B of them for a token, part by part", () => {
  const config = parseModelConfig(deepseekV3, "config.json");
  const { blocks } = config.spec;
  const inBillions = (count: number) => Number((count / 1e9).toFixed(3));
  const sum = (maps: readonly LinearSpec[]) => inBillions(maps.reduce((all, { rows, cols }) => all + rows * cols, 0));
  const maps = blocks.flatMap((block) => linearsOf(block));
  const mlp = (some: typeof blocks) =>
    some.flatMap((block) => linearsOf(block)).filter(({ role }) => /(gate|up|down)_proj$/.test(role));
  const [dense, mixtures] = [blocks.slice(0, 3), blocks.slice(3)];
  expect(mixtures.every((block) => findStep(block, "mixture") !== undefined)).toBe(true);
  expect(sum(mlp(mixtures))).toBe(656.463);
  expect(sum(mlp(mixtures).filter(({ id }) => /^shared|^experts\.[0-7]\./.test(id)))).toBe(22.989);
  expect(sum(mlp(dense))).toBe(1.189);
  expect(sum(maps.filter(({ role }) => !/(gate|up|down)_proj$/.test(role)))).toBe(11.413);
  const counted = countParameters(config.spec, new Map());
  const { head, embedding, router, total, active } = counted;
  expect([head, embedding, router].map(inBillions)).toEqual([0.927, 0.927, 0.106]);
  const { mlp: ofAll, experts, activeExperts, attention } = counted;
  expect([experts, activeExperts, ofAll].map(inBillions)).toEqual([656.463, 22.989, 1.189]);
  // Its two norms, of latents, are no matrices.
  expect(inBillions(attention)).toBe(11.413);
  expect((total / 1e9).toFixed(1)).toBe("671.0");
  expect((active / 1e9).toFixed(1)).toBe("36.6");
  // A latent of 512 and a rotated key of 64 for each position and layer, not 128 keys of 192 and values of 128.
  expect(kvBytesPerPosition(config)).toBe(61 * (512 + 64) * 4);
});

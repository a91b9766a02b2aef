import { afterAll, beforeAll, expect, test } from "vitest";
import { parseModelConfig, tensorsOf } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import { loadModel, type Model, type Tap } from "../../src/model/index.js";
import type { WeightFormatId } from "../../src/pack/index.js";
import { greedyContinuation, logitsOf } from "../golden/golden.js";
import { MemoryCheckpoint } from "./memoryCheckpoint.js";

// DeepSeek-V3 in small: as many experts, groups and experts a token, the first layer dense, one shared expert, latent attention;
// only the widths are small. Weights are random.

const [hidden, heads, nope, rotated, value, latent, queryRank] = [64, 4, 32, 32, 32, 32, 32];
const [layers, denseWidth, expertWidth, experts, groups, perToken, vocabulary] = [3, 160, 32, 256, 8, 8, 256];
const config = {
  model_type: "deepseek_v3",
  architectures: ["DeepseekV3ForCausalLM"],
  hidden_size: hidden,
  num_hidden_layers: layers,
  num_attention_heads: heads,
  num_key_value_heads: heads,
  qk_nope_head_dim: nope,
  qk_rope_head_dim: rotated,
  v_head_dim: value,
  kv_lora_rank: latent,
  q_lora_rank: queryRank,
  intermediate_size: denseWidth,
  moe_intermediate_size: expertWidth,
  n_routed_experts: experts,
  n_shared_experts: 1,
  num_experts_per_tok: perToken,
  n_group: groups,
  topk_group: 4,
  norm_topk_prob: true,
  routed_scaling_factor: 2.5,
  first_k_dense_replace: 1,
  max_position_embeddings: 256,
  rope_theta: 10000,
  rope_interleave: true,
  rms_norm_eps: 1e-6,
  hidden_act: "silu",
  tie_word_embeddings: false,
  vocab_size: vocabulary,
};

function randomCheckpoint(): MemoryCheckpoint {
  const checkpoint = new MemoryCheckpoint({ ...config }, new Map());
  const random = new Random(7);
  for (const { name, shape } of tensorsOf(parseModelConfig(config, "config.json").spec)) {
    const count = shape.reduce((product, size) => product * size, 1);
    const deviation = shape.length === 1 ? 0.1 : 1 / Math.sqrt(shape.at(-1)!);
    const center = name.endsWith("norm.weight") ? 1 : 0;
    checkpoint.set(
      name,
      shape,
      Float32Array.from({ length: count }, () => center + deviation * random.normal()),
    );
  }
  return checkpoint;
}

const ids = Uint32Array.from({ length: 12 }, (_, i) => (i * 37 + 5) % vocabulary);
/** Bytes of a weight, scales of groups of 32 among them. */
const bytesOf: Readonly<Record<WeightFormatId, number>> = { f32: 4, bf16: 2, q8: 1 + 2 / 32, q4: 0.5 + 2 / 32 };

let backend: Backend;
beforeAll(async () => {
  backend = await openBackend("wasm", { threads: 1 });
});
afterAll(() => backend[Symbol.dispose]());
const load = (weights: WeightFormatId): Promise<Model> => loadModel(randomCheckpoint(), backend, { weights });

test("decoding keeps the latents alone, and reads what the formula says", async () => {
  for (const weights of ["f32", "q8"] as const) {
    using model = await load(weights);
    using cache = model.createCache(ids.length);
    // 64 numbers a token and layer, where four heads of keys and values would have 384.
    expect(cache.byteLength).toBe(layers * ids.length * (latent + rotated) * 4);
    const attention =
      hidden * queryRank +
      queryRank * heads * (nope + rotated) +
      hidden * (latent + rotated) +
      latent * heads * (nope + value) +
      heads * value * hidden;
    const multiplied =
      layers * attention +
      3 * hidden * denseWidth +
      (layers - 1) * 3 * hidden * expertWidth * (perToken + 1) +
      hidden * vocabulary;
    const router = (layers - 1) * experts * hidden * 4;
    expect(model.weightBytes.perToken).toBe(multiplied * bytesOf[weights] + router);
    for (const [position, id] of ids.entries()) {
      backend.takeCounters();
      backend.release((await model.forward(Uint32Array.of(id), cache, position))!);
      const { weightBytesRead, kvBytesRead } = backend.takeCounters();
      expect(weightBytesRead).toBe(multiplied * bytesOf[weights] + router);
      expect(kvBytesRead).toBe(layers * (position + 1) * (latent + rotated) * 4);
    }
  }
});

test("tokens go to eight experts of four groups at most, alone as in a prompt, and many experts are used", async () => {
  using model = await load("f32");
  const used = new Set<string>();
  const seen: number[][] = [];
  const tap: Tap = {
    sites: model.config.spec.blocks.flatMap(({ steps }) => steps.flatMap((s) => (s.do === "mixture" ? s.site.id : []))),
    async onActivation(layer, _site, _activation, slots) {
      for (const row of new Set(slots!.rows)) {
        const own = [...slots!.experts].filter((_, s) => slots!.rows[s] === row);
        for (const expert of own) used.add(`${layer} ${expert}`);
        seen.push([own.length, new Set(own.map((expert) => Math.floor(expert / (experts / groups)))).size]);
      }
    },
  };
  const whole = await logitsOf(model, ids, ids.length, { tap });
  expect(seen.length).toBe(ids.length * (layers - 1));
  for (const [count, groupsOfRow] of seen) {
    expect(count).toBe(perToken);
    expect(groupsOfRow).toBeLessThanOrEqual(4);
  }
  expect(used.size).toBeGreaterThan(60);
  const single = await logitsOf(model, ids, 1);
  for (const [r, row] of whole.entries())
    for (const [i, v] of row.entries()) expect(Math.abs(v - single[r][i])).toBeLessThan(1e-4 * (1 + Math.abs(v)));
  expect(await greedyContinuation(model, ids, 4)).toHaveLength(4);
});

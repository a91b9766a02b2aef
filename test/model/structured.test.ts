import { describe, expect, test } from "vitest";
import type { BlockShape } from "../../src/arch/index.js";
import { openBackend } from "../../src/kernels/index.js";
import { kvBytesPerPosition, loadModel } from "../../src/model/index.js";
import { architectureGolden } from "../golden/golden.js";
import { roles } from "../support/gatedBlock.js";
import { MemoryCheckpoint } from "./memoryCheckpoint.js";

const ids = architectureGolden("qwen3").ids;

/** Logits of all positions, prefilled in two passes and decoded at the end. */
async function logitsOf(checkpoint: MemoryCheckpoint, backendId: string, thresholds?: number): Promise<Float32Array[]> {
  using backend = await openBackend(backendId, { threads: 2 });
  using model = await loadModel(checkpoint, backend, { weights: "f32" });
  const record = Object.fromEntries(roles.map((role, i) => [role, (thresholds ?? 0) + i / 50]));
  const maps = Array.from({ length: model.config.layers }, () => record);
  const options = { logits: "all", thresholds: thresholds === undefined ? "dense" : { maps } } as const;
  using cache = model.createCache(ids.length);
  expect(cache.byteLength).toBe(kvBytesPerPosition(model.config) * ids.length);
  const rows: Float32Array[] = [];
  for (const [start, end] of [
    [0, 3],
    [3, ids.length - 1],
    [ids.length - 1, ids.length],
  ]) {
    const logits = (await model.forward(ids.subarray(start, end), cache, start, options))!;
    rows.push(await backend.read(logits));
    backend.release(logits);
  }
  return rows;
}

function expectClose(actual: Float32Array[], expected: Float32Array[]): void {
  for (const [pass, row] of actual.entries()) {
    const worst = row.reduce((most, v, i) => Math.max(most, Math.abs(v - expected[pass][i])), 0);
    expect(worst, `pass ${pass}`).toBeLessThan(2e-4);
  }
}

/** The rows or columns of a stored matrix where `keep` holds. */
function cut(checkpoint: MemoryCheckpoint, name: string, axis: 0 | 1, keep: (index: number) => boolean): void {
  const [rows, cols] = checkpoint.tensors.get(name)!.shape;
  const values = checkpoint.values(name);
  const kept = values.filter((_, i) => keep(axis === 0 ? Math.floor(i / cols) : i % cols));
  const count = kept.length / (axis === 0 ? cols : rows);
  checkpoint.set(name, axis === 0 ? [count, cols] : [rows, count], kept);
}

function zero(checkpoint: MemoryCheckpoint, name: string, column: (index: number) => boolean): void {
  const { shape } = checkpoint.tensors.get(name)!;
  const values = checkpoint.values(name).map((v, i) => (column(i % shape[1]) ? 0 : v));
  checkpoint.set(name, shape, values);
}

describe.each(["reference", "wasm"])("on %s", (backendId) => {
  test("blocks of different sizes give what the whole model gives with those heads and neurons silenced", async () => {
    const whole = await MemoryCheckpoint.golden("qwen3");
    const { num_attention_heads, num_key_value_heads, head_dim, intermediate_size, num_hidden_layers } =
      whole.config as Record<string, number>;
    const perKv = num_attention_heads / num_key_value_heads;
    const smaller = await MemoryCheckpoint.golden("qwen3");
    const blocks: BlockShape[] = [];
    for (let layer = 0; layer < num_hidden_layers; layer++) {
      // Layer 0 keeps one key head and its queries; the others keep all. Neurons: 4 fewer in each further layer.
      const kvHeads = layer === 0 ? 1 : num_key_value_heads;
      const intermediateSize = intermediate_size - 4 * (layer + 1);
      blocks.push({ kvHeads, queryHeads: kvHeads * perKv, intermediateSize });
      const prefix = `model.layers.${layer}`;
      const keepQuery = (i: number) => i < kvHeads * perKv * head_dim;
      const keepKv = (i: number) => i < kvHeads * head_dim;
      const keepNeuron = (i: number) => i < intermediateSize;
      cut(smaller, `${prefix}.self_attn.q_proj.weight`, 0, keepQuery);
      cut(smaller, `${prefix}.self_attn.k_proj.weight`, 0, keepKv);
      cut(smaller, `${prefix}.self_attn.v_proj.weight`, 0, keepKv);
      cut(smaller, `${prefix}.self_attn.o_proj.weight`, 1, keepQuery);
      cut(smaller, `${prefix}.mlp.gate_proj.weight`, 0, keepNeuron);
      cut(smaller, `${prefix}.mlp.up_proj.weight`, 0, keepNeuron);
      cut(smaller, `${prefix}.mlp.down_proj.weight`, 1, keepNeuron);
      zero(whole, `${prefix}.self_attn.o_proj.weight`, (i) => !keepQuery(i));
      zero(whole, `${prefix}.mlp.down_proj.weight`, (i) => !keepNeuron(i));
    }
    smaller.artifact = { rarefy: 2, blocks };
    expectClose(await logitsOf(smaller, backendId), await logitsOf(whole, backendId));
  });

  test("pairs of low rank, alone and with a residual, give what their products give, thresholds included", async () => {
    const pairs = await MemoryCheckpoint.golden("qwen3");
    const products = await MemoryCheckpoint.golden("qwen3");
    for (const [name, rank, residual] of [
      ["model.layers.0.self_attn.k_proj", 4, false],
      ["model.layers.0.mlp.gate_proj", 8, true],
      ["model.layers.0.mlp.up_proj", 12, false],
      ["model.layers.1.mlp.down_proj", 8, true],
      ["model.layers.1.self_attn.o_proj", 4, false],
    ] as const) {
      const [rows, cols] = pairs.tensors.get(`${name}.weight`)!.shape;
      const stored = pairs.values(`${name}.weight`);
      const left = Float32Array.from({ length: rows * rank }, (_, i) => Math.sin(i * 1.7) * 0.2);
      const right = Float32Array.from({ length: rank * cols }, (_, i) => Math.cos(i * 2.3) * 0.2);
      const product = Float32Array.from({ length: rows * cols }, (_, i) => {
        const [r, c] = [Math.floor(i / cols), i % cols];
        let sum = residual ? stored[i] : 0;
        for (let k = 0; k < rank; k++) sum += left[r * rank + k] * right[k * cols + c];
        return sum;
      });
      products.set(`${name}.weight`, [rows, cols], product);
      pairs.set(`${name}.low_rank.left`, [rows, rank], left);
      pairs.set(`${name}.low_rank.right`, [rank, cols], right);
      if (!residual) pairs.tensors.delete(`${name}.weight`);
    }
    expectClose(await logitsOf(pairs, backendId), await logitsOf(products, backendId));
    expectClose(await logitsOf(pairs, backendId, 0.2), await logitsOf(products, backendId, 0.2));
  });
});

test("a rank that is no multiple of 4 and a left matrix of another rank are refused together, by name", async () => {
  const checkpoint = await MemoryCheckpoint.golden("qwen3");
  const name = "model.layers.0.mlp.up_proj";
  const [rows, cols] = checkpoint.tensors.get(`${name}.weight`)!.shape;
  checkpoint.set(`${name}.low_rank.left`, [rows, 8], new Float32Array(rows * 8));
  checkpoint.set(`${name}.low_rank.right`, [6, cols], new Float32Array(6 * cols));
  using backend = await openBackend("reference");
  const failure = await loadModel(checkpoint, backend, { weights: "f32" }).catch((error: unknown) => error);
  expect(failure).toMatchObject({
    problems: [
      expect.stringContaining(`the rank of ${name}.low_rank.right is 6`),
      expect.stringContaining(`${name}.low_rank.left is [${rows}, 8]; expected [${rows}, 6]`),
    ],
  });
});

import { describe, expect, it } from "vitest";
import { FormatError, Random } from "../../src/core/index.js";
import type { ByteSource } from "../../src/io/byteSource.js";
import { openCheckpoint } from "../../src/io/checkpoint.js";
import { ggufFiles } from "../../src/io/gguf/files.js";
import { ggmlTypeByName } from "../../src/io/gguf/ggmlTypes.js";
import { aligned, headerBytes, type TensorPlan, type TypedValue } from "../../src/io/gguf/headerBytes.js";
import { memorySource } from "../../src/io/memory.js";
import { byteLengthOf } from "../../src/tensor/index.js";
import { loadTokenizer } from "../../src/text/index.js";

/**
 * Seeded damage to GGUF files that are right. Every outcome must be a checkpoint whose tensors lie in the file, or a FormatError
 * that names the file; no read may be longer than the file.
 */
const name = "hostile.gguf";

const metadata = new Map<string, TypedValue>([
  ["general.architecture", { string: "llama" }],
  ["llama.block_count", { u32: 1 }],
  ["llama.context_length", { u32: 64 }],
  ["llama.embedding_length", { u32: 32 }],
  ["llama.feed_forward_length", { u32: 32 }],
  ["llama.attention.head_count", { u32: 4 }],
  ["llama.attention.head_count_kv", { u32: 2 }],
  ["llama.attention.layer_norm_rms_epsilon", { f32: 1e-5 }],
  ["llama.rope.freq_base", { f32: 10000 }],
  ["tokenizer.ggml.model", { string: "gpt2" }],
  ["tokenizer.ggml.pre", { string: "gpt-2" }],
  ["tokenizer.ggml.tokens", { strings: ["a", "b", "ab", "Ġ", "<|end|>", "é"] }],
  ["tokenizer.ggml.token_type", { i32s: [1, 1, 1, 1, 3, 4] }],
  ["tokenizer.ggml.merges", { strings: ["a b"] }],
  ["tokenizer.ggml.eos_token_id", { u32: 4 }],
  ["tokenizer.ggml.add_bos_token", { bool: false }],
]);
const sentencePiece = new Map<string, TypedValue>([
  ...metadata,
  ["tokenizer.ggml.model", { string: "llama" }],
  ["tokenizer.ggml.scores", { f32s: [0, 0, -1, -2, 0, 0] }],
]);
const tensors: readonly (readonly [string, string, readonly number[]])[] = [
  ["token_embd.weight", "Q8_0", [6, 32]],
  ["blk.0.attn_q.weight", "Q4_0", [32, 32]],
  ["blk.0.attn_k.weight", "F16", [16, 32]],
  ["blk.0.ffn_up.weight", "Q6_K", [2, 256]],
  ["blk.0.ffn_down.weight", "Q4_K", [1, 512]],
  ["output_norm.weight", "F32", [32]],
  ["blk.0.attn_norm.weight", "BF16", [32]],
];

function whole(values: ReadonlyMap<string, TypedValue>): { bytes: Uint8Array; header: number } {
  let end = 0;
  const plans: TensorPlan[] = tensors.map(([tensor, typeName, shape]) => {
    const type = ggmlTypeByName.get(typeName)!;
    const plan = { name: tensor, type, shape, offset: end };
    end += aligned((shape.reduce((a, b) => a * b) / type.blockSize) * type.blockBytes);
    return plan;
  });
  const header = headerBytes(values, plans);
  const bytes = new Uint8Array(header.byteLength + end);
  bytes.set(header);
  return { bytes, header: header.byteLength };
}

/** Numbers that have broken parsers, as 64 bits. */
const evil = [
  0n,
  1n,
  2n,
  5n,
  9n,
  31n,
  33n,
  255n,
  2n ** 16n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 40n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
];

function damaged(random: Random, { bytes, header }: ReturnType<typeof whole>): Uint8Array {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  const at = random.integer(header - 8);
  switch (random.integer(6)) {
    case 0:
      for (let n = random.integer(4); n >= 0; n--) copy[random.integer(header)] = random.integer(256);
      return copy;
    case 1:
      view.setBigUint64(at, evil[random.integer(evil.length)], true);
      return copy;
    case 2:
      view.setUint32(at, Number(evil[random.integer(evil.length)] & 0xffffffffn), true);
      return copy;
    case 3:
      return copy.slice(0, random.integer(copy.length));
    case 4:
      copy.copyWithin(at, random.integer(header));
      return copy;
    default: {
      const cut = random.integer(40);
      const out = new Uint8Array(copy.length - cut);
      out.set(copy.subarray(0, at));
      out.set(copy.subarray(at + cut).subarray(0, out.length - at), at);
      return out;
    }
  }
}

function watched(bytes: Uint8Array): ByteSource {
  const source = memorySource(name, bytes);
  return {
    ...source,
    read(offset, length, into) {
      expect(offset + length).toBeLessThanOrEqual(bytes.byteLength);
      return source.read(offset, length, into);
    },
  };
}

/** @returns whether it opened */
async function openHostile(bytes: Uint8Array, withTokenizer: boolean): Promise<boolean> {
  try {
    const files = await ggufFiles(name, async () => watched(bytes));
    const checkpoint = await openCheckpoint(files);
    for (const [tensor, info] of checkpoint.tensors) {
      // Damage can make a tensor of few stored bytes no larger than 32/4.5 of the file.
      expect(byteLengthOf(info)).toBeLessThan(bytes.byteLength * 8);
      expect((await checkpoint.read(tensor)).byteLength).toBe(byteLengthOf(info));
    }
    if (withTokenizer) await loadTokenizer(files);
    return true;
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    expect(error.details.file.startsWith(name)).toBe(true);
    expect(error.message.length).toBeLessThan(2000);
    return false;
  }
}

describe("hostile GGUF files", () => {
  it.each([
    ["byte-level", metadata],
    ["SentencePiece", sentencePiece],
  ])("8,000 damaged %s files end in a FormatError or a checkpoint inside the file", async (_, values) => {
    const random = new Random(30);
    const good = whole(values);
    expect(await openHostile(good.bytes, true)).toBe(true);
    let opened = 0;
    for (let i = 0; i < 8000; i++) if (await openHostile(damaged(random, good), i % 8 === 0)) opened++;
    // Some damage is harmless: a name, an unknown key, a value in range.
    expect(opened).toBeGreaterThan(200);
    expect(opened).toBeLessThan(6000);
  });

  it("a file cut at any byte of the header ends in a FormatError", async () => {
    const { bytes, header } = whole(metadata);
    for (let length = 0; length < header; length++)
      expect(await openHostile(bytes.slice(0, length), false)).toBe(false);
  });

  it("reads tensors beyond 4 GiB", async () => {
    const offset = aligned(5 * 2 ** 30);
    const type = ggmlTypeByName.get("F32")!;
    const plan = { name: "output_norm.weight", type, shape: [32], offset };
    const header = headerBytes(metadata, [plan]);
    const values = Float32Array.from({ length: 32 }, (_, i) => i / 8);
    const first = header.byteLength + offset;
    const source: ByteSource = {
      name,
      byteLength: first + 128,
      async read(at, length, into = new Uint8Array(length)) {
        const bytes = at < header.byteLength ? header : new Uint8Array(values.buffer);
        const from = at < header.byteLength ? at : at - first;
        expect(from).toBeGreaterThanOrEqual(0);
        into.set(bytes.subarray(from, from + length));
        return into;
      },
      async close() {},
    };
    const checkpoint = await openCheckpoint(await ggufFiles(name, async () => source));
    expect(await checkpoint.readFloat32("model.norm.weight")).toEqual(values);
  });

  it.each<[string, (view: DataView) => void, RegExp]>([
    ["another magic", (view) => view.setUint32(0, 0x47475546, true), /does not begin with GGUF/],
    ["version 1", (view) => view.setUint32(4, 1, true), /version: version 1; expected version 2 or 3/],
    ["big-endian numbers", (view) => view.setUint32(4, 0x03000000, true), /big-endian/],
    ["2⁶² tensors", (view) => view.setBigUint64(8, 2n ** 62n, true), /tensor count: number/],
    ["2⁴⁰ tensors", (view) => view.setBigUint64(8, 2n ** 40n, true), /more than the file has room for/],
    ["2⁴⁰ keys", (view) => view.setBigUint64(16, 2n ** 40n, true), /metadata count.*more than/],
    ["a key of 2⁵⁰ bytes", (view) => view.setBigUint64(24, 2n ** 50n, true), /metadata 0: .*bytes at byte/],
  ])("refuses %s", async (_, change, message) => {
    const { bytes } = whole(metadata);
    change(new DataView(bytes.buffer));
    await expect(ggufFiles(name, async () => memorySource(name, bytes))).rejects.toThrow(message);
  });

  it.each<[string, [string, TypedValue], RegExp]>([
    [
      "an architecture",
      ["general.architecture", { string: "gemma" }],
      /general.architecture: .*"gemma".*llama, qwen2, qwen3/,
    ],
    ["a kind of tokenizer", ["tokenizer.ggml.model", { string: "rwkv" }], /tokenizer.ggml.model: .*"rwkv"/],
    ["a pre-tokenizer", ["tokenizer.ggml.pre", { string: "klingon" }], /tokenizer.ggml.pre: .*"klingon"/],
    [
      "a text for a number",
      ["llama.block_count", { string: "1" }],
      /llama.block_count: a value of another kind; expected a number/,
    ],
    [
      "experts of which none is used",
      ["llama.expert_count", { u32: 8 }],
      /llama.expert_used_count: the key is missing/,
    ],
    ["an alignment", ["general.alignment", { u32: 7 }], /general.alignment: 7; expected a power of two/],
    ["widths that differ", ["llama.feed_forward_length", { i32s: [1, 2] }], /differs from layer to layer/],
  ])("refuses %s that it does not know", async (_, [key, value], message) => {
    const { bytes } = whole(new Map([...metadata, [key, value]]));
    await expect(ggufFiles(name, async () => memorySource(name, bytes))).rejects.toThrow(message);
  });
});

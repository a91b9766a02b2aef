import { describe, expect, it } from "vitest";
import { parseModelConfig } from "../arch/index.js";
import { FormatError, Random } from "../core/index.js";
import { byteLengthOf } from "../tensor/index.js";
import { parseArtifact } from "./artifact.js";
import type { ByteSource, ModelFiles } from "./byteSource.js";
import { openCheckpoint } from "./checkpoint.js";
import { memoryFiles } from "./memory.js";

/**
 * Seeded damage to files that are right. Every outcome must be a checkpoint whose tensors fill its files, or a FormatError
 * that names the file; whatever is read must lie inside the file.
 */
const encoder = new TextEncoder();
const location = "hostile";

const entries: [string, object][] = [
  ["__metadata__", { format: "pt", note: "é" }],
  ["model.embed_tokens.weight", { dtype: "BF16", shape: [8, 4], data_offsets: [0, 64] }],
  ["model.layers.0.self_attn.q_proj.weight", { dtype: "F32", shape: [4, 4], data_offsets: [64, 128] }],
  ["model.norm.weight", { dtype: "F16", shape: [4], data_offsets: [128, 136] }],
  ["bias", { dtype: "I64", shape: [], data_offsets: [136, 144] }],
  ["none", { dtype: "U8", shape: [0, 3], data_offsets: [144, 144] }],
];
const tensorNames = entries.slice(1).map(([name]) => name);
const dataLength = 144;

function fileOf(header: string, length = encoder.encode(header).length, data = dataLength): Uint8Array {
  const text = encoder.encode(header);
  const bytes = new Uint8Array(8 + text.length + data);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, BigInt(length)), true);
  bytes.set(text, 8);
  return bytes;
}

const goodHeader = JSON.stringify(Object.fromEntries(entries));

/** Values that have broken parsers. */
const evil = [
  0,
  -0,
  -1,
  1,
  2,
  3,
  7,
  8,
  63,
  65,
  143,
  145,
  1e3,
  0.5,
  1e300,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  2 ** 53 - 1,
  2 ** 63,
  null,
  true,
  "",
  "0",
  "F32",
  "BF16",
  "F128",
  "__proto__",
  "constructor",
  [],
  [0],
  [[]],
  [0, 0],
  [1, 2, 3],
  {},
  { length: 2 },
  [2 ** 32, 2 ** 32],
  [2 ** 53],
  [0, 2 ** 53 - 1],
  [1e308, 1e308],
  ["4", "4"],
  "x".repeat(3000),
  Array(500).fill(1),
];
const evilJson = [
  "1e999",
  "-1e999",
  "NaN",
  "01",
  "0x10",
  '"\\u0000"',
  '"\\ud800"',
  "1.0",
  "[",
  "}",
  "nul",
  "9".repeat(400),
  "[".repeat(5000),
];

const pick = <T>(random: Random, list: readonly T[]): T => list[random.integer(list.length)];

/** One change in a JSON tree: a value replaced, a key dropped, renamed or added. */
function changeTree(random: Random, root: unknown): unknown {
  const copy: unknown = structuredClone(root);
  let node = copy as Record<string, unknown>;
  for (;;) {
    const keys = Object.keys(node);
    if (keys.length === 0) return copy;
    const key = pick(random, keys);
    const child = node[key];
    if (typeof child === "object" && child !== null && Object.keys(child).length > 0 && random.uniform() < 0.7) {
      node = child as Record<string, unknown>;
      continue;
    }
    const kind = random.integer(4);
    if (kind === 0) delete node[key];
    else if (kind === 1) node[pick(random, [...tensorNames, "x", "dtype", "__metadata__", "constructor"])] = child;
    else node[key] = pick(random, evil);
    return copy;
  }
}

function changeText(random: Random, text: string): string {
  const at = random.integer(text.length);
  const to = at + random.integer(12);
  switch (random.integer(5)) {
    case 0:
      return text.slice(0, at) + text.slice(to);
    case 1:
      return text.slice(0, at) + text.slice(at, to) + text.slice(at);
    case 2:
      return text.slice(0, at) + pick(random, evilJson) + text.slice(to);
    case 3:
      return text.slice(0, at) + String.fromCharCode(random.integer(256)) + text.slice(at + 1);
    default:
      return text.replace(/\d+/g, (digits) => (random.integer(12) === 0 ? String(random.integer(200)) : digits));
  }
}

function changeBytes(random: Random, bytes: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  const count = 1 + random.integer(4);
  // The first bytes decide most.
  for (let i = 0; i < count; i++)
    copy[random.integer(random.integer(2) === 0 ? 16 : copy.length)] = random.integer(256);
  return copy;
}

const mutators: ((random: Random) => Uint8Array)[] = [
  (random) => fileOf(JSON.stringify(changeTree(random, JSON.parse(goodHeader)))),
  (random) => fileOf(JSON.stringify(changeTree(random, changeTree(random, JSON.parse(goodHeader))))),
  (random) => fileOf(changeText(random, goodHeader)),
  (random) => changeBytes(random, fileOf(goodHeader)),
  (random) => fileOf(goodHeader, pick(random, [0, 1, 7, goodHeader.length - 1, 2 ** 31, 2 ** 40, -1, 2 ** 53])),
  (random) => fileOf(goodHeader, undefined, random.integer(2 * dataLength)),
  (random) => fileOf(goodHeader + " ".repeat(random.integer(20))),
  (random) => {
    const whole = fileOf(goodHeader);
    return whole.slice(0, random.integer(whole.length));
  },
];

/** Files that fail the test when a read would allocate more than the file has. */
function watched(files: ModelFiles): ModelFiles {
  const watch = (source: ByteSource): ByteSource => ({
    name: source.name,
    byteLength: source.byteLength,
    close: () => source.close(),
    read(offset, length, into) {
      expect(offset + length).toBeLessThanOrEqual(source.byteLength);
      return source.read(offset, length, into);
    },
  });
  return {
    ...files,
    async open(name) {
      const source = await files.open(name);
      return source && watch(source);
    },
  };
}

/** @returns whether it opened */
async function openHostile(files: Map<string, Uint8Array>): Promise<boolean> {
  let checkpoint: Awaited<ReturnType<typeof openCheckpoint>>;
  try {
    checkpoint = await openCheckpoint(watched(memoryFiles(location, files)));
  } catch (error) {
    expectFormatError(error, `${location}/`);
    return false;
  }
  let tensorBytes = 0;
  for (const [name, info] of checkpoint.tensors) {
    expect((await checkpoint.read(name)).byteLength).toBe(byteLengthOf(info));
    tensorBytes += byteLengthOf(info);
  }
  const single = files.get("model.safetensors");
  if (single !== undefined) {
    const headerLength = Number(new DataView(single.buffer, single.byteOffset).getBigUint64(0, true));
    expect(tensorBytes).toBe(single.byteLength - 8 - headerLength);
  }
  await checkpoint.close();
  return true;
}

function expectFormatError(error: unknown, file: string): void {
  if (!(error instanceof FormatError)) throw error;
  expect(error.details.file.startsWith(file)).toBe(true);
  expect(error.details.problem.length).toBeGreaterThan(3);
  expect(error.message.length).toBeLessThan(2000);
}

describe("hostile files", () => {
  it("12,000 damaged or cut safetensors files end in a FormatError or a consistent checkpoint", async () => {
    const random = new Random(20);
    let opened = 0;
    for (let i = 0; i < 12_000; i++) {
      const bytes = mutators[i % mutators.length](random);
      const files = new Map([
        ["config.json", encoder.encode("{}")],
        ["model.safetensors", bytes],
      ]);
      if (await openHostile(files)) opened++;
    }
    // Some damage is harmless (metadata, names, padding); most is not.
    expect(opened).toBeGreaterThan(300);
    expect(opened).toBeLessThan(4000);
  });

  it("a file cut at any byte ends in a FormatError", async () => {
    const whole = fileOf(goodHeader);
    for (let length = 0; length < whole.length; length++) {
      const files = new Map([
        ["config.json", encoder.encode("{}")],
        ["model.safetensors", whole.slice(0, length)],
      ]);
      expect(await openHostile(files)).toBe(false);
    }
  });

  it("names the tensor whose entry is damaged", async () => {
    const random = new Random(21);
    const damages: ((entry: { dtype: unknown; shape: unknown; data_offsets: unknown }) => void)[] = [
      (entry) => {
        entry.dtype = pick(
          random,
          evil.slice(20, 32).filter((value) => !["F32", "BF16"].includes(String(value))),
        );
      },
      (entry) => {
        entry.shape = [2 ** 53];
      },
      (entry) => {
        entry.data_offsets = [0, 2 ** 50];
      },
    ];
    for (let i = 0; i < 600; i++) {
      const root = JSON.parse(goodHeader) as Record<string, never>;
      const name = pick(random, tensorNames);
      pick(random, damages)(root[name]);
      const files = new Map([
        ["config.json", encoder.encode("{}")],
        ["model.safetensors", fileOf(JSON.stringify(root))],
      ]);
      const error: unknown = await openCheckpoint(memoryFiles(location, files)).catch((caught: unknown) => caught);
      expectFormatError(error, `${location}/model.safetensors`);
      expect((error as FormatError).details.field).toBe(name);
    }
  });

  it("2,000 damaged shard indexes end in a FormatError or a consistent checkpoint", async () => {
    const random = new Random(22);
    const shard = "model-00001-of-00001.safetensors";
    const index = {
      metadata: { total_size: 144 },
      weight_map: Object.fromEntries(tensorNames.map((name) => [name, shard])),
    };
    for (let i = 0; i < 2000; i++) {
      const damaged =
        i % 2 === 0 ? JSON.stringify(changeTree(random, index)) : changeText(random, JSON.stringify(index));
      await openHostile(
        new Map([
          ["config.json", encoder.encode("{}")],
          ["model.safetensors.index.json", encoder.encode(damaged)],
          [shard, fileOf(goodHeader)],
        ]),
      );
    }
  });

  const config = {
    model_type: "qwen2",
    vocab_size: 512,
    hidden_size: 64,
    intermediate_size: 160,
    num_hidden_layers: 4,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 16,
    hidden_act: "silu",
    max_position_embeddings: 256,
    rms_norm_eps: 1e-6,
    rope_parameters: {
      rope_theta: 10000,
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 64,
    },
    layer_types: ["full_attention", "full_attention", "sliding_attention", "sliding_attention"],
    use_sliding_window: true,
    sliding_window: 8,
    max_window_layers: 2,
    eos_token_id: [2, 3],
    bos_token_id: 1,
    tie_word_embeddings: false,
  };

  it("5,000 damaged configs end in a FormatError or a config of bounded size", () => {
    const random = new Random(23);
    for (let i = 0; i < 5000; i++) {
      let damaged: unknown = changeTree(random, config);
      if (i % 2 === 0) damaged = changeTree(random, damaged);
      try {
        const parsed = parseModelConfig(damaged, "config.json");
        expect(parsed.slidingWindows.length).toBe(parsed.layers);
        expect(parsed.layers).toBeLessThanOrEqual(4096);
        expect(parsed.queryHeads % parsed.kvHeads).toBe(0);
        for (const value of [parsed.vocabSize, parsed.hiddenSize, parsed.headDim, parsed.maxPositions]) {
          expect(Number.isSafeInteger(value) && value > 0).toBe(true);
        }
      } catch (error) {
        expectFormatError(error, "config.json");
      }
    }
  });

  it("2,000 damaged artifacts end in a FormatError or finite thresholds", () => {
    const random = new Random(24);
    const cut = { threshold: 0.1, sparsity: 0.5 };
    const projections = Object.fromEntries(
      ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"].map((name) => [name, cut]),
    );
    const artifact = {
      rarefy: 2,
      weights: "q8",
      activationSparsity: {
        method: "teal",
        estimator: "absQuantile",
        allocation: "greedy",
        sparsity: 0.5,
        prefill: { denseFirst: 4 },
        layers: [{ maps: projections }, { maps: projections, gate: cut }],
        calibration: { textSha256: "0".repeat(64), windows: 32, window: 512, seed: 0 },
      },
      results: [{ perplexity: 30 }],
    };
    expect(() => parseArtifact(artifact, "rarefy.json")).not.toThrow();
    for (let i = 0; i < 2000; i++) {
      try {
        const parsed = parseArtifact(changeTree(random, artifact), "rarefy.json");
        for (const layer of parsed.activationSparsity?.layers ?? []) {
          for (const { threshold } of Object.values(layer.maps)) {
            expect(Number.isFinite(threshold) && threshold >= 0).toBe(true);
          }
        }
      } catch (error) {
        expectFormatError(error, "rarefy.json");
      }
    }
  });
});

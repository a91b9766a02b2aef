import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { families, type ModelConfig, parseModelConfig } from "../../src/arch/index.js";
import { FormatError, Random } from "../../src/core/index.js";
import { serializeArtifact } from "../../src/io/artifact.js";
import { createFile, memorySinks } from "../../src/io/byteSink.js";
import { readChatTemplates } from "../../src/io/chatTemplates.js";
import { type Checkpoint, openCheckpoint } from "../../src/io/checkpoint.js";
import { encodeTensor } from "../../src/io/encoding/index.js";
import { directoryFiles } from "../../src/io/file.node.js";
import { checkpointName, ggufName } from "../../src/io/gguf/architectures.js";
import { type GgufTypeId, ggufEncodings, ggufTypeIds } from "../../src/io/gguf/encodeBlocks.js";
import { ggufFiles } from "../../src/io/gguf/files.js";
import { ggmlTypeByName } from "../../src/io/gguf/ggmlTypes.js";
import { fitLlama3Scaling, ropeDivisors } from "../../src/io/gguf/ropeFactors.js";
import { neighbourRow, reorderRows } from "../../src/io/gguf/rotaryRows.js";
import { writeGguf } from "../../src/io/gguf/writeGguf.js";
import { resolveModel } from "../../src/io/hub.node.js";
import { memoryFiles, memorySource } from "../../src/io/memory.js";
import { writeSafetensors } from "../../src/io/safetensorsWriter.js";
import { mergesFromScores } from "../../src/io/tokenizer/mergesFromScores.js";
import { preTokenizerLike, preTokenizerNamed, preTokenizers } from "../../src/io/tokenizer/preTokenizers.js";
import { f16FromF32, f32FromF16 } from "../../src/tensor/index.js";
import { loadChatTemplate, loadTokenizer } from "../../src/text/index.js";

const tinyModel = new URL("../../models/tiny-6m", import.meta.url).pathname;
const golden = (name: string) => new URL(`../golden/arch/${name}`, import.meta.url).pathname;

const opened: Checkpoint[] = [];
afterAll(() => Promise.all(opened.map((checkpoint) => checkpoint.close())));

async function openModel(directory: string) {
  const checkpoint = await openCheckpoint(directoryFiles(directory));
  opened.push(checkpoint);
  const generation = await checkpoint.readJson("generation_config.json");
  return { checkpoint, config: parseModelConfig(checkpoint.config, "config.json", generation) };
}

/** A checkpoint with some members replaced. */
function viewOf(checkpoint: Checkpoint, change: Partial<Checkpoint>): Checkpoint {
  const bound = { read: checkpoint.read.bind(checkpoint), readScales: checkpoint.readScales.bind(checkpoint) };
  return Object.assign(Object.create(checkpoint), bound, change);
}

/** A model as GGUF in memory, seen as files again. */
async function asGguf(checkpoint: Checkpoint, config: ModelConfig, type: GgufTypeId) {
  const written = new Map<string, Uint8Array>();
  await createFile(memorySinks(written), "m.gguf", (sink) => writeGguf(sink, checkpoint, config, { type, name: "m" }));
  const bytes = written.get("m.gguf")!;
  return { bytes, files: await ggufFiles("m.gguf", async () => memorySource("m.gguf", bytes)) };
}

/** For checkpoints that have no tokenizer. */
function wordsFor({ vocabSize }: ModelConfig) {
  const vocab = Object.fromEntries(Array.from({ length: vocabSize }, (_, id) => [`t${id}`, id]));
  const model = { type: "BPE", vocab, merges: [] };
  return { normalizer: null, pre_tokenizer: preTokenizers[0].rules, model, added_tokens: [] };
}

describe("GGUF", () => {
  it.each(["llama", "llama3-rope", "mistral", "qwen2", "qwen3"])(
    "%s: config and weights come back in f32",
    async (name) => {
      const { checkpoint, config } = await openModel(golden(name));
      const readJson = async (file: string) => (file === "tokenizer.json" ? wordsFor(config) : undefined);
      const { files } = await asGguf(viewOf(checkpoint, { readJson }), config, "f32");
      const back = await openCheckpoint(files);
      const { modelType, ...rest } = parseModelConfig(back.config, "config.json");
      const { modelType: wanted, rope, ...expected } = config;
      expect(modelType).toBe(wanted);
      // A text ends where the window does, which llama.cpp passes over.
      const maxPositions = Math.min(
        expected.maxPositions,
        ...expected.slidingWindows.map((window) => window ?? Infinity),
      );
      const { spec, ...fields } = expected;
      const read = { maxPositions, spec: { ...spec, maxPositions }, eosTokenIds: fields.eosTokenIds.slice(0, 1) };
      expect(rest).toMatchObject({ ...fields, ...read });
      if (rope.type !== "llama3") expect(rest.rope).toEqual(rope);
      else {
        expect(rest.rope.type).toBe("llama3");
        const found = ropeDivisors(rest.rope as typeof rope, rest.rope.theta, config.headDim);
        const divisors = ropeDivisors(rope, rope.theta, config.headDim);
        for (const [i, divisor] of divisors.entries()) expect(found[i] / divisor).toBeCloseTo(1, 3);
      }
      expect(new Set(back.tensors.keys())).toEqual(new Set(checkpoint.tensors.keys()));
      for (const tensor of checkpoint.tensors.keys()) {
        expect(await back.readFloat32(tensor), tensor).toEqual(await checkpoint.readFloat32(tensor));
      }
    },
  );

  it.each([
    [
      "chat_template.jinja",
      { chat_template: "old" },
      "{{ messages[0].content }}",
      { default: "{{ messages[0].content }}" },
    ],
    [
      "a list of named ones",
      {
        chat_template: [
          { name: "default", template: "d" },
          { name: "tool_use", template: "t" },
        ],
      },
      undefined,
      { default: "d", tool_use: "t" },
    ],
    ["none", {}, undefined, {}],
  ])("keeps chat templates: %s", async (_name, tokenizerConfig, jinja, expected) => {
    const { checkpoint, config } = await openModel(golden("llama"));
    const utf8 = (value: unknown) =>
      new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));
    const texts = new Map([["tokenizer_config.json", utf8(tokenizerConfig)]]);
    if (jinja !== undefined) texts.set("chat_template.jinja", utf8(jinja));
    const readJson = async (file: string) => (file === "tokenizer.json" ? wordsFor(config) : undefined);
    const { files } = await asGguf(viewOf(checkpoint, { readJson, files: memoryFiles("m", texts) }), config, "f16");
    expect(Object.fromEntries(await readChatTemplates(files))).toEqual(expected);
  });

  it("gives tiny-6m back: tokenizer, chat template, weights in every type", async () => {
    const { checkpoint, config } = await openModel(tinyModel);
    const { files } = await asGguf(checkpoint, config, "bf16");
    const [ours, theirs] = [await loadTokenizer(directoryFiles(tinyModel)), await loadTokenizer(files)];
    const texts = [
      "Hello, world! It's 1999.",
      "  two  spaces\n\n\tand tabs",
      "żółć 漢字 🦉",
      "<|im_start|>user\nHi<|im_end|>\n",
    ];
    for (const text of texts) {
      const ids = ours.encode(text);
      expect(theirs.encode(text)).toEqual(ids);
      expect(theirs.decode(ids)).toBe(ours.decode(ids));
    }
    expect(theirs.specialIds).toEqual(ours.specialIds);
    const messages = [{ role: "user", content: "Hi" }];
    const [a, b] = await Promise.all([loadChatTemplate(directoryFiles(tinyModel)), loadChatTemplate(files)]);
    expect(b!.render(messages)).toBe(a!.render(messages));
    expect(parseModelConfig((await openCheckpoint(files)).config, "c")).toEqual(config);

    // But that of experts, which this model has none of.
    const limits: Record<Exclude<GgufTypeId, "mxfp4">, number> = {
      f32: 0,
      bf16: 0,
      f16: 1e-6,
      q8_0: 0.008,
      q4_0: 0.13,
    };
    const name = "model.layers.3.self_attn.q_proj.weight";
    const expected = await checkpoint.readFloat32(name);
    const size = Math.sqrt(expected.reduce((sum, x) => sum + x * x, 0));
    for (const type of ggufTypeIds.filter((one) => one !== "mxfp4")) {
      const back = await openCheckpoint((await asGguf(checkpoint, config, type)).files);
      const found = await back.readFloat32(name);
      const error = Math.sqrt(found.reduce((sum, x, i) => sum + (x - expected[i]) ** 2, 0)) / size;
      expect(error, type).toBeLessThanOrEqual(limits[type]);
      // Rows by themselves, not at the edge of a head.
      const info = back.tensors.get(name)!;
      const rowBytes = (await back.read(name)).byteLength / info.shape[0];
      const rows = await back.read(name, 5 * rowBytes, 3 * rowBytes);
      expect(rows).toEqual((await back.read(name)).slice(5 * rowBytes, 8 * rowBytes));
      expect(back.tensors.get("model.norm.weight")!.dtype).toBe("F32");
    }
  });

  it("is a model wherever a model is named", async () => {
    const directory = await mkdtemp(join(tmpdir(), "rarefy-gguf-"));
    afterAll(() => rm(directory, { recursive: true }));
    const path = join(directory, "tiny.gguf");
    const { checkpoint: original, config } = await openModel(tinyModel);
    await writeFile(path, (await asGguf(original, config, "f16")).bytes);
    const files = await resolveModel(path);
    expect(files.location).toBe(path);
    expect(await files.names()).toEqual(["config.json", "tokenizer.json", "tokenizer_config.json", "model.gguf"]);
    expect(files.pathOf("model.gguf")).toBe(path);
    expect(files.pathOf("config.json")).toBeUndefined();
    const checkpoint = await openCheckpoint(files);
    expect(checkpoint.tensors.get("model.embed_tokens.weight")).toMatchObject({ dtype: "F16", shape: [8192, 256] });
    await checkpoint.close();
  });

  it("keeps the codes of weights that lie on a grid", async () => {
    const random = new Random(7);
    const [rows, cols] = [8, 64];
    const { checkpoint, config } = await openModel(tinyModel);
    const name = "model.layers.0.self_attn.o_proj.weight";
    for (const [type, bits] of [
      ["q8_0", 8],
      ["q4_0", 4],
      ["q4_0", 3],
    ] as const) {
      const largest = 2 ** (bits - 1) - 1;
      const codes = Int16Array.from({ length: rows * cols }, () => random.integer(2 * largest + 1) - largest);
      const scales = Float32Array.from({ length: (rows * cols) / 32 }, () =>
        f32FromF16(f16FromF32(0.01 + random.uniform() / 9)),
      );
      const values = Float32Array.from(codes, (code, i) => code * scales[Math.floor(i / 32)]);
      const grid = { codes, scales, zeros: new Int16Array(scales.length), bits, groupSize: 32 };
      const encoded = encodeTensor(name, { shape: [rows, cols], values, grid }, "packed", "F32");
      const files = new Map([
        ["config.json", new TextEncoder().encode(JSON.stringify(checkpoint.config))],
        ["rarefy.json", serializeArtifact({ rarefy: 2, tensors: { [name]: encoded.declaration! } })],
      ]);
      await writeSafetensors(
        memorySinks(files),
        encoded.tensors.map(({ bytes, ...info }) => ({ ...info, bytes: () => [bytes] })),
      );
      const source = await openCheckpoint(memoryFiles("m", files));
      const readJson = checkpoint.readJson.bind(checkpoint);
      const back = await openCheckpoint((await asGguf(viewOf(source, { readJson }), config, type)).files);
      expect(back.tensors.get(name)!.grid).toEqual({
        bits: type === "q8_0" ? 8 : 4,
        groupSize: 32,
        symmetric: true,
        scaleDType: "F16",
      });
      expect(await back.readFloat32(name)).toEqual(values);
      expect(await back.readScales(name, 0, rows)).toEqual(scales);
    }
  });

  it.each(["normalizer", "Metaspace"])(
    "gives a SentencePiece tokenizer back that marks spaces by its %s",
    async (kind) => {
      const mark = "\u2581";
      const { checkpoint, config } = await openModel(golden("llama"));
      const special = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
      const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
      const merges = [`${mark} t`, "h e", `${mark}t he`, "e r", `${mark} a`, "he r"];
      const letters = [mark, ..."abcdefghijklmnopqrst", ..."."];
      const tokens = ["<unk>", "<s>", "</s>", ...bytes, ...letters, ...merges.map((merge) => merge.replace(" ", ""))];
      const replace = { type: "Replace", pattern: { String: " " }, content: mark };
      const prepend = { type: "Prepend", prepend: mark };
      const marks =
        kind === "normalizer"
          ? { normalizer: { type: "Sequence", normalizers: [prepend, replace] }, pre_tokenizer: null }
          : {
              normalizer: null,
              pre_tokenizer: { type: "Metaspace", replacement: mark, prepend_scheme: "first", split: false },
            };
      const tokenizer = {
        version: "1.0",
        added_tokens: ["<unk>", "<s>", "</s>"].map((content, id) => ({ id, content, ...special })),
        ...marks,
        post_processor: {
          type: "TemplateProcessing",
          single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
          pair: [],
          special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
        },
        decoder: {
          type: "Sequence",
          decoders: [
            { type: "Replace", pattern: { String: mark }, content: " " },
            { type: "ByteFallback" },
            { type: "Fuse" },
            { type: "Strip", content: " ", start: 1, stop: 0 },
          ],
        },
        model: {
          type: "BPE",
          vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
          merges,
          byte_fallback: true,
          fuse_unk: true,
          unk_token: "<unk>",
        },
      };
      const own = { bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>" };
      const json = { "tokenizer.json": tokenizer, "tokenizer_config.json": own } as Record<string, object>;
      const { files } = await asGguf(viewOf(checkpoint, { readJson: async (name) => json[name] }), config, "f16");
      const encoder = new TextEncoder();
      const original = await loadTokenizer(
        memoryFiles(
          "t",
          new Map(Object.entries(json).map(([name, value]) => [name, encoder.encode(JSON.stringify(value))])),
        ),
      );
      const again = await loadTokenizer(files);
      // Metaspace writes no second mark before a space at the start; llama.cpp does, like the normalizer.
      for (const text of ["the other", "a the  her.", "é\n", ...(kind === "normalizer" ? [" x"] : [])]) {
        const ids = original.encode(text);
        expect(ids[0]).toBe(1);
        expect(again.encode(text), text).toEqual(ids);
        expect(again.decode(ids, { skipSpecialTokens: true })).toBe(text);
      }
      expect(again.idOf("<0x0A>")).toBe(3 + 10);
    },
  );

  it("refuses what llama.cpp cannot run", async () => {
    const { checkpoint, config } = await openModel(tinyModel);
    const write = (change: object) => asGguf(checkpoint, { ...config, ...change }, "f16");
    await expect(write({ activation: "relu" })).rejects.toThrow(/silu.*relu/);
    await expect(write({ modelType: "gemma" })).rejects.toThrow(/gemma/);
    const blocks = config.blocks.map((block, i) => (i === 2 ? { ...block, intermediateSize: 96 } : block));
    await expect(write({ blocks })).rejects.toThrow(/differ in size/);
    await expect(write({ slidingWindows: [8, undefined] })).rejects.toThrow(/sliding window/);
  });
});

describe("GGUF parts", () => {
  const block = (name: string, bytes: Uint8Array) => {
    const out = new Float32Array(ggmlTypeByName.get(name)!.blockSize);
    ggmlTypeByName.get(name)!.decode!(bytes, 0, out, 0);
    return out;
  };
  const halfBytes = (value: number) => [f16FromF32(value) & 255, f16FromF32(value) >> 8];

  it("decodes Q4_K by its formula", () => {
    const random = new Random(1);
    for (let t = 0; t < 50; t++) {
      const scales = Array.from({ length: 8 }, () => random.integer(64));
      const minima = Array.from({ length: 8 }, () => random.integer(64));
      const codes = Array.from({ length: 256 }, () => random.integer(16));
      // The packing, written down the other way round than the decoder reads it.
      const packed = new Uint8Array(12);
      for (let b = 0; b < 4; b++) {
        packed[b] = scales[b] | ((scales[b + 4] >> 4) << 6);
        packed[b + 4] = minima[b] | ((minima[b + 4] >> 4) << 6);
        packed[b + 8] = (scales[b + 4] & 15) | ((minima[b + 4] & 15) << 4);
      }
      const quants = new Uint8Array(128);
      for (let c = 0; c < 4; c++)
        for (let i = 0; i < 32; i++) quants[c * 32 + i] = codes[c * 64 + i] | (codes[c * 64 + 32 + i] << 4);
      const found = block("Q4_K", Uint8Array.of(...halfBytes(0.25), ...halfBytes(0.5), ...packed, ...quants));
      expect([...found]).toEqual(codes.map((code, i) => 0.25 * scales[i >> 5] * code - 0.5 * minima[i >> 5]));
    }
  });

  it("decodes Q6_K by its formula", () => {
    const random = new Random(2);
    for (let t = 0; t < 50; t++) {
      const codes = Array.from({ length: 256 }, () => random.integer(64));
      const scales = Array.from({ length: 16 }, () => random.integer(256) - 128);
      const low = new Uint8Array(128);
      const high = new Uint8Array(64);
      for (let half = 0; half < 2; half++) {
        for (let l = 0; l < 32; l++) {
          const [a, b, c, d] = [0, 32, 64, 96].map((offset) => codes[half * 128 + offset + l]);
          low[half * 64 + l] = (a & 15) | ((c & 15) << 4);
          low[half * 64 + l + 32] = (b & 15) | ((d & 15) << 4);
          high[half * 32 + l] = (a >> 4) | ((b >> 4) << 2) | ((c >> 4) << 4) | ((d >> 4) << 6);
        }
      }
      const found = block("Q6_K", Uint8Array.of(...low, ...high, ...scales.map((s) => s & 255), ...halfBytes(0.125)));
      expect(found.map((x) => x + 0)).toEqual(
        Float32Array.from(codes, (code, i) => 0.125 * scales[i >> 4] * (code - 32) + 0),
      );
    }
  });

  it("rounds to Q8_0 within half a step and to Q4_0 within a step", () => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ min: -100, max: 100, noNaN: true }), { minLength: 32, maxLength: 32 }),
        (list) => {
          const values = Float32Array.from(list, (x) => (Math.abs(x) < 1e-3 ? 0 : x));
          const largest = values.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
          const q8 = block("Q8_0", ggufEncodings.q8_0.encode(values));
          const q4 = block("Q4_0", ggufEncodings.q4_0.encode(values));
          for (const [i, value] of values.entries()) {
            expect(Math.abs(q8[i] - value)).toBeLessThanOrEqual((largest / 127) * 0.5 + largest * 2 ** -10);
            expect(Math.abs(q4[i] - value)).toBeLessThanOrEqual((largest / 8) * 1.01);
            if (value === 0) expect([q8[i], q4[i]].map(Math.abs)).toEqual([0, 0]);
          }
        },
      ),
    );
  });

  it("names every tensor both ways", () => {
    const llama = families.llama.gguf!;
    for (const name of [
      "model.embed_tokens.weight",
      "model.norm.weight",
      "lm_head.weight",
      "model.layers.12.mlp.down_proj.weight",
      "model.layers.0.self_attn.q_proj.bias",
      "model.layers.3.self_attn.k_norm.weight",
      "model.layers.3.post_attention_layernorm.weight",
    ]) {
      expect(checkpointName(llama, ggufName(llama, name)!)).toBe(name);
    }
    expect(ggufName(llama, "model.layers.2.mlp.gate_proj.weight")).toBe("blk.2.ffn_gate.weight");
    expect(ggufName(llama, "model.layers.2.mlp.router.weight")).toBeUndefined();
    expect(checkpointName(llama, "blk.0.ffn_gate_exps.weight")).toBeUndefined();
    expect(checkpointName(llama, "__proto__.weight")).toBeUndefined();
  });

  it("reorders the rows of heads there and back", () => {
    expect(Array.from({ length: 8 }, (_, row) => neighbourRow(row, 8))).toEqual([0, 2, 4, 6, 1, 3, 5, 7]);
    const bytes = Uint8Array.from({ length: 48 }, (_, i) => i);
    const neighbours = reorderRows(bytes, 2, 8, "toNeighbours");
    expect([...neighbours.subarray(0, 6)]).toEqual([0, 1, 8, 9, 2, 3]);
    expect(reorderRows(neighbours, 2, 8, "toHalves")).toEqual(bytes);
  });

  it("finds the scaling of Llama 3 from its divisors", () => {
    for (const [factor, theta, headDim] of [
      [8, 500_000, 128],
      [32, 500_000, 64],
    ] as const) {
      const scaling = { factor, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 8192 };
      expect(fitLlama3Scaling(ropeDivisors(scaling, theta, headDim), theta, headDim)).toEqual(scaling);
    }
    expect(fitLlama3Scaling(Float32Array.of(1, 2, 3, 9), 10_000, 8)).toBeUndefined();
    expect(fitLlama3Scaling(new Float32Array(4), 10_000, 8)).toBeUndefined();
  });

  it("knows its pre-tokenizers by name and by rules", () => {
    for (const row of preTokenizers) {
      expect(preTokenizerLike(structuredClone(row.rules))).toBe(row);
      for (const name of row.names) expect(preTokenizerNamed(name)).toBe(row);
    }
    expect(preTokenizerLike({ type: "ByteLevel", add_prefix_space: false })).toBe(preTokenizers[0]);
    expect(preTokenizerLike({ type: "Whitespace" })).toBeUndefined();
    expect(preTokenizerNamed("constructor")).toBeUndefined();
  });

  it("merges SentencePiece tokens in the order of their scores", () => {
    const tokens = ["a", "b", "c", "ab", "bc", "abc"];
    const ids = new Map(tokens.map((token, id) => [token, id]));
    expect(mergesFromScores("f", "tokens", ids, [0, 0, 0, -2, -1, -3])).toEqual([
      ["b", "c"],
      ["a", "b"],
      ["ab", "c"],
      ["a", "bc"],
    ]);
    expect(() => mergesFromScores("f", "tokens", new Map([["x".repeat(600), 0]]), [0])).toThrow(FormatError);
  });

  it("refuses families of tokens whose merges grow with their square", () => {
    // 20 letters, each once, twice … 512 times: 2.6 million merges.
    const tokens = Array.from({ length: 20 * 512 }, (_, i) =>
      String.fromCharCode(97 + (i % 20)).repeat(1 + Math.floor(i / 20)),
    );
    const ids = new Map(tokens.map((token, id) => [token, id]));
    const scores = tokens.map((_, id) => -id);
    expect(() => mergesFromScores("f", "tokens", ids, scores)).toThrow(/more than \d+ merges for 10240 tokens/);
    // Long tokens that have no splits cost the looking for them.
    const long = new Map(Array.from({ length: 5000 }, (_, id) => [String(id).padEnd(512, "x"), id]));
    expect(() => mergesFromScores("f", "tokens", long, new Array(5000).fill(0))).toThrow(/too many long tokens/);
  });
});

import { readFileSync } from "node:fs";
import { describe, expect, it, test } from "vitest";
import { FormatError } from "../../src/core/index.js";
import { memoryFiles, openCheckpoint } from "../../src/io/index.js";
import { jsonBytes } from "../../src/io/internal.js";
import { tensorRows } from "../../src/model/tensorRows.js";
import { weightFormats } from "../../src/pack/index.js";
import { fromFloat32, toFloat32 } from "../../src/tensor/index.js";
import { compress, logits, relativeDifference } from "../compress/support.js";
import { path } from "../golden/golden.js";
import { stackStores, stores } from "../support/storeAs.mjs";
import { filesOf, quantizedModel, type Raw } from "./quantizedModel.js";

const open = async (config: object, tensors: readonly Raw[]) =>
  openCheckpoint(memoryFiles("m", await filesOf(config, tensors)));

/** Rows that are no whole blocks, columns that are no whole groups of 64. */
const shape = [160, 96];
const waves = (length: number) =>
  Float32Array.from({ length }, (_, i) => Math.sin(i * 12.9898) * Math.cos(i / 77) * 0.1);
const values = waves(shape[0] * shape[1]);
const name = "model.layers.0.mlp.up_proj.weight";

/** Whose codes are none of at most 8 bits about zero with neighbours in a group. */
const withoutGrid = /act-order|^gptq 8 bits$|^float-quantized|^fp8 blocks$|^nf4/;

describe.each(Object.entries(stores))("%s", (id, store) => {
  const shape = store.shape ?? [160, 96];
  const values = waves(shape[0] * shape[1]);

  it("gives the values that the codes stand for, in any range of rows", async () => {
    const { raw, expected } = store.parts(name, { shape, values });
    const checkpoint = await open({ model_type: "llama", quantization_config: store.record }, raw);
    expect(checkpoint.config).toEqual({ model_type: "llama" });
    expect([...checkpoint.tensors.keys()]).toEqual([name]);
    const info = checkpoint.tensors.get(name)!;
    expect(info).toMatchObject({ dtype: "F32", shape });
    expect(info.storedBytes).toBeLessThan(0.6 * values.length * 2 + 2000);
    // Rounding to 2 bits leaves something of the weights; reading in another order leaves nothing. Marlin-24 leaves out the half.
    expect(relativeDifference(expected, values)).toBeLessThan(id.includes("marlin-24") ? 1 : 0.4);
    const read = await checkpoint.readFloat32(name);
    expect(relativeDifference(read, expected)).toBeLessThan(2e-7);
    for (const [start, count] of [
      [5, 7],
      [shape[0] - 1, 1],
      [0, 64],
    ]) {
      const bytes = (await checkpoint.read(name, start * shape[1] * 4, count * shape[1] * 4)).slice();
      const rows = read.slice(start * shape[1], (start + count) * shape[1]);
      expect(relativeDifference(new Float32Array(bytes.buffer), rows)).toBe(0);
    }
  });

  it("tells a grid on which all values lie", async () => {
    const { raw } = store.parts(name, { shape, values });
    const checkpoint = await open({ model_type: "llama", quantization_config: store.record }, raw);
    const { grid } = checkpoint.tensors.get(name)!;
    expect(grid === undefined).toBe(withoutGrid.test(id));
    if (grid === undefined) return;
    const [scales, read] = [await checkpoint.readScales(name, 0, shape[0]), await checkpoint.readFloat32(name)];
    const groups = Math.ceil(shape[1] / grid.groupSize);
    expect(scales.length).toBe(shape[0] * groups);
    const codes = read.map((value, i) => {
      return value / scales[Math.floor(i / shape[1]) * groups + Math.floor((i % shape[1]) / grid.groupSize)];
    });
    expect(codes.findIndex((code) => Math.abs(code - Math.round(code)) > 1e-4)).toBe(-1);
    expect(
      codes.findIndex((code) => code < -(2 ** (grid.bits - 1)) - 1e-4 || code > 2 ** (grid.bits - 1) - 1 + 1e-4),
    ).toBe(-1);
  });

  it("a part that is missing or has another shape ends in an error that names it", async () => {
    const { raw } = store.parts(name, { shape, values });
    const config = { model_type: "llama", quantization_config: store.record };
    const optional = /\.(?:g_idx|weight_g_idx|weight_format|input_scale|weight_global_scale)$/;
    for (const [i, part] of raw.entries()) {
      const others = raw.filter((_, other) => other !== i);
      if (!optional.test(part.name)) {
        const missing = await attempt(config, others);
        expect(missing, `without ${part.name}`).toBeInstanceOf(FormatError);
      }
      if (part.name.includes("quant_state") || part.name.endsWith("input_scale") || part.shape.length === 0) continue;
      // With one scale, any shape is a matrix; that it is not the model's is found later.
      if (part.name === name && raw.some(({ shape }) => shape.join() === "1")) continue;
      const bytes = new Uint8Array(part.bytes.length * 2);
      const longer = { ...part, shape: [part.shape[0] * 2, ...part.shape.slice(1)], bytes };
      const wrong = await attempt(config, [...others, longer]);
      expect(wrong, `with a longer ${part.name}`).toBeInstanceOf(FormatError);
      expect((wrong as FormatError).message).toContain(name.replace(".weight", ""));
    }
  });
});

/** Opens and reads; the error that ends it. A matrix whose mark is missing is not found, and its parts are named. */
async function attempt(config: object, tensors: readonly Raw[]): Promise<unknown> {
  try {
    const checkpoint = await open(config, tensors);
    await checkpoint.readFloat32(name);
  } catch (error) {
    return error;
  }
  return undefined;
}

interface ToolCase {
  tool: string;
  what: string;
  record: Record<string, unknown>;
  tensors: Record<string, { dtype: string; shape: number[]; base64: string }>;
  shape: [number, number];
  rows: number[];
  /** f32 [rows, cols] */
  values: string;
}
const { cases }: { cases: ToolCase[] } = JSON.parse(readFileSync(path("quantized.json"), "utf8"));

test.each(cases.map((one) => [`${one.what}, ${one.tool}`, one] as const))(
  "as its own tool unpacks it: %s",
  async (_what, one) => {
    const raw = Object.entries(one.tensors).map(([name, { base64, ...info }]) => {
      return { name, ...info, bytes: new Uint8Array(Buffer.from(base64, "base64")) };
    });
    const checkpoint = await open({ model_type: "llama", quantization_config: one.record }, raw);
    expect([...checkpoint.tensors.keys()]).toEqual(["w.weight"]);
    expect(checkpoint.tensors.get("w.weight")!.shape).toEqual(one.shape);
    const read = await checkpoint.readFloat32("w.weight");
    const cols = one.shape[1];
    const rows = one.rows.flatMap((row) => [...read.slice(row * cols, (row + 1) * cols)]);
    const wanted = new Float32Array(new Uint8Array(Buffer.from(one.values, "base64")).buffer);
    // That tool multiplies FP4 in bf16.
    const tolerance = /fp4-pack/.test(one.what) ? 2 ** -7 : 1e-6;
    expect(relativeDifference(rows, wanted)).toBeLessThan(tolerance);
  },
);

const models = [
  ...Object.entries(stores).map(([id, store]) => [id, "llama", store] as const),
  ["mxfp4", "gpt_oss", stackStores.mxfp4] as const,
];

test.each(models)("a model in %s runs as the one with plain values does", async (_id, golden, store) => {
  const { stored, expected } = await quantizedModel(golden, store);
  expect(stored.quantizedBy).toMatch(/\w, \w/);
  const wanted = await logits(expected);
  expect(relativeDifference(await logits(stored), wanted)).toBeLessThan(1e-5);
});

const oneOfEach = ["gptq act-order", "awq", "pack-quantized asymmetric", "int-quantized", "marlin-24 8 bits"].concat([
  "fp8 blocks",
  "mxfp4",
  "nf4 nested",
  "LLM.int8()",
]);
test.each(oneOfEach.map((id) => models.find(([own]) => own === id)!))(
  "a model in %s is pruned, and what comes of it is a model like any other",
  async (_id, golden, store) => {
    const { stored, expected } = await quantizedModel(golden, store);
    const { opened } = await compress(stored, {
      stages: [{ type: "prune", method: "magnitude", pattern: 0.5 }],
      store: "dense",
    });
    expect(opened.config).not.toHaveProperty("quantization_config");
    expect(opened.quantizedBy).toBeUndefined();
    const name = [...expected.tensors.keys()].find((one) => /(?:mlp.up_proj.weight|experts.gate_up_proj)$/.test(one))!;
    const [after, before] = [await opened.readFloat32(name), expected.values(name)];
    expect(after.filter((value) => value === 0).length / after.length).toBeGreaterThan(0.49);
    expect(after.findIndex((value, i) => value !== 0 && Math.abs(value - before[i]) > 1e-6)).toBe(-1);
  },
);

test.each([
  ["GPTQ of 4 bits in q4", "gptq 4 bits", "q4"],
  ["GPTQ of 4 bits with zeros in q8", "gptq v2", "q8"],
  ["packed integers in q4", "pack-quantized 4 bits", "q4"],
  ["integers of 8 bits in q8", "int-quantized", "q8"],
  ["MXFP4 in q8", "mxfp4-pack-quantized", "q8"],
  ["LLM.int8() in q8", "LLM.int8()", "q8"],
  ["marlin-24 of 4 bits in q4", "marlin-24 4 bits", "q4"],
] as const)("%s keeps its codes", async (_what, id, weights) => {
  const shape = stores[id].shape ?? [160, 96];
  const values = waves(shape[0] * shape[1]);
  const { raw, expected } = stores[id].parts(name, { shape, values });
  const checkpoint = await open({ quantization_config: stores[id].record }, raw);
  const source = tensorRows(checkpoint, { tensor: name, shape }, shape[0], { onRead() {}, onSuspect() {} });
  const scales = new Float32Array(shape[0] * (shape[1] / 32));
  await source.scales!(0, shape[0], scales);
  const packed = weightFormats[weights].pack(expected, shape[0], shape[1], scales);
  const held = weightFormats[weights].unpack(packed, shape[0], shape[1]);
  // Codes of the grid with its scales in bf16: each value changes by its scale's rounding and no more.
  const worst = expected.reduce(
    (most, value, i) => Math.max(most, value === 0 ? Math.abs(held[i]) * 1e9 : Math.abs(held[i] / value - 1)),
    0,
  );
  expect(worst).toBeLessThan(2 ** -8);
});

test("groups of inputs that do not exist, and others than the settings say, end in an error", async () => {
  for (const [id, group, problem] of [
    ["gptq act-order", 9, /g_idx has group 9 for input 3; expected 0 to 1/],
    ["gptq act-order", -1, /g_idx has group -1/],
    ["gptq 4 bits", 2, /g_idx has group 2 for input 3; expected 0, without desc_act/],
    ["pack-quantized act-order", 9, /g_idx has group 9/],
  ] as const) {
    const { raw } = stores[id].parts(name, { shape, values });
    const order = raw.find((part) => part.name.endsWith("g_idx"))!;
    new Int32Array(order.bytes.buffer, order.bytes.byteOffset)[3] = group;
    const checkpoint = await open({ quantization_config: stores[id].record }, raw);
    await expect(checkpoint.readFloat32(name), id).rejects.toThrow(problem);
  }
});

test("places of 2:4 that are no two ascending ones end in an error", async () => {
  const { shape, record, parts } = stores["marlin-24 4 bits"];
  const { raw } = parts(name, { shape: shape!, values: waves(shape![0] * shape![1]) });
  raw.find((part) => part.name.endsWith(".meta"))!.bytes.fill(0x55, 0, 2);
  const checkpoint = await open({ quantization_config: record }, raw);
  await expect(checkpoint.readFloat32(name)).rejects.toThrow(
    /up_proj.*\.meta places entries 1 and 1 of columns 0 to 3 of row 0; expected two places in ascending order/,
  );
});

describe("records", () => {
  it("are found beside config.json, as AutoGPTQ and AutoAWQ left them", async () => {
    for (const [id, file, record] of [
      [
        "gptq v2",
        "quantize_config.json",
        { bits: 4, group_size: 32, sym: false, desc_act: false, checkpoint_format: "gptq_v2" },
      ],
      ["awq", "quant_config.json", { w_bit: 4, q_group_size: 32, zero_point: true, version: "GEMM" }],
    ] as const) {
      const { raw, expected } = stores[id].parts(name, { shape, values });
      const files = await filesOf({ model_type: "llama" }, raw);
      await expect(openCheckpoint(memoryFiles("m", files))).rejects.toThrow(/GPTQ or AWQ.*no quantization_config/);
      files.set(file, jsonBytes(record));
      expect(
        relativeDifference(await (await openCheckpoint(memoryFiles("m", files))).readFloat32(name), expected),
      ).toBeLessThan(2e-7);
    }
  });

  it("of the older field are read, and settings of single modules", async () => {
    const store = stores["pack-quantized 4 bits"];
    const { raw, expected } = store.parts(name, { shape, values });
    const checkpoint = await open({ compression_config: store.record }, raw);
    expect(relativeDifference(await checkpoint.readFloat32(name), expected)).toBeLessThan(2e-7);
    const three = stores["gptq 3 bits"].parts(name, { shape, values });
    const record = {
      ...stores["gptq 4 bits"].record,
      sym: false,
      group_size: 128,
      dynamic: { "+:.*up.*": { bits: 3 } },
    };
    const dynamic = await open({ quantization_config: record }, three.raw);
    expect(relativeDifference(await dynamic.readFloat32(name), three.expected)).toBeLessThan(2e-7);
  });

  it("leave rounded values that are stored plain as they are, without the scales beside them", async () => {
    const plain: Raw = { name, dtype: "BF16", shape, bytes: fromFloat32("BF16", values) };
    const scale: Raw = {
      name: name.replace("weight", "weight_scale"),
      dtype: "BF16",
      shape: [160, 1],
      bytes: new Uint8Array(320),
    };
    const record = { ...stores["int-quantized"].record, format: "dense", quantization_status: "frozen" };
    const checkpoint = await open({ quantization_config: record }, [plain, scale]);
    expect([...checkpoint.tensors.values()]).toMatchObject([{ name, dtype: "BF16" }]);
  });

  it("of a scheme that the scales do not fit end in an error", async () => {
    const { raw } = stores["pack-quantized 4 bits"].parts(name, { shape, values });
    for (const id of ["pack-quantized 8 bits", "int-quantized", "float-quantized channel", "nvfp4-pack-quantized"]) {
      await expect(open({ quantization_config: stores[id].record }, raw), id).rejects.toThrow(
        /up_proj: quantised by compressed-tensors: .*fit no scheme of the model/,
      );
    }
  });

  it("a matrix that is there twice is refused", async () => {
    const { raw } = stores.awq.parts(name, { shape, values });
    const plain = { name, dtype: "F32", shape, bytes: fromFloat32("F32", values) };
    await expect(open({ quantization_config: stores.awq.record }, [...raw, plain])).rejects.toThrow(
      /both as plain values/,
    );
  });
});

test("FP8 values and tables of small floats are those of the standards", async () => {
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
  const e4m3 = toFloat32("F8_E4M3", bytes);
  expect([e4m3[0x08], e4m3[0x01], e4m3[0x38], e4m3[0x7e], e4m3[0xfe], e4m3[0xb8]]).toEqual([
    2 ** -6,
    2 ** -9,
    1,
    448,
    -448,
    -1,
  ]);
  expect([e4m3[0x7f], e4m3[0xff]]).toEqual([Number.NaN, Number.NaN]);
  const e5m2 = toFloat32("F8_E5M2", bytes);
  expect([e5m2[0x01], e5m2[0x3c], e5m2[0x7b], e5m2[0x7c], e5m2[0xfc]]).toEqual([
    2 ** -16,
    1,
    57344,
    Infinity,
    -Infinity,
  ]);
  const e8m0 = toFloat32("F8_E8M0", bytes);
  expect([e8m0[0], e8m0[127], e8m0[254]]).toEqual([2 ** -127, 1, 2 ** 127]);
});

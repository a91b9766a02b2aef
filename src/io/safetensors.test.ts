import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FormatError, UsageError } from "../core/index.js";
import { byteLengthOf, type DType, dtypeBytes } from "../tensor/index.js";
import { memorySinks } from "./byteSink.js";
import { openCheckpoint } from "./checkpoint.js";
import { memoryFiles, memorySource } from "./memory.js";
import { readSafetensorsHeader } from "./safetensors.js";
import { type TensorToWrite, writeSafetensors } from "./safetensorsWriter.js";

const utf8 = (text: string) => new TextEncoder().encode(text);

/** A safetensors file from the text of its header. */
function fileOf(header: string, dataLength: number, headerLength = utf8(header).length): Uint8Array {
  const text = utf8(header);
  const bytes = new Uint8Array(8 + text.length + dataLength);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(headerLength), true);
  bytes.set(text, 8);
  for (let i = 0; i < dataLength; i++) bytes[8 + text.length + i] = i;
  return bytes;
}

const read = (bytes: Uint8Array) => readSafetensorsHeader(memorySource("bad.safetensors", bytes));
const entry = (dtype: string, shape: string, begin: number | string, end: number | string) =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;

describe("safetensors header", () => {
  it("gives tensors in file order with absolute offsets", async () => {
    const header = `{"b":${entry("F32", "[1]", 4, 8)},"a":${entry("I8", "[2,2]", 0, 4)},"__metadata__":{"format":"pt"}}  `;
    const { tensors, metadata } = await read(fileOf(header, 8));
    const start = 8 + header.length;
    expect([...tensors.values()]).toEqual([
      { name: "a", dtype: "I8", shape: [2, 2], byteOffset: start, byteLength: 4 },
      { name: "b", dtype: "F32", shape: [1], byteOffset: start + 4, byteLength: 4 },
    ]);
    expect([...metadata]).toEqual([["format", "pt"]]);
  });

  it("takes scalars, empty tensors, no tensors, unknown fields and odd names", async () => {
    const header =
      `{"s":${entry("F64", "[]", 0, 8)},"e":${entry("F32", "[0,9007199254740991]", 8, 8)},` +
      `"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[8,9],"note":1}}`;
    const { tensors } = await read(fileOf(header, 9));
    expect([...tensors.keys()].toSorted()).toEqual(["__proto__", "e", "s"]);
    expect((await read(fileOf("{}", 0))).tensors.size).toBe(0);
  });

  it("takes every type of the reference library, and null for no metadata", async () => {
    const sizes = { F8_E8M0: [4, 4], F4: [8, 4], F6_E2M3: [4, 3], F6_E3M2: [8, 6], C64: [2, 16] } as const;
    for (const [dtype, [count, bytes]] of Object.entries(sizes)) {
      const { tensors } = await read(
        fileOf(`{"__metadata__":null,"a":${entry(dtype, `[${count}]`, 0, bytes)}}`, bytes),
      );
      expect(tensors.get("a")).toMatchObject({ dtype, byteLength: bytes });
    }
    await expect(read(fileOf(`{"a":${entry("F4", "[3]", 0, 2)}}`, 2))).rejects.toThrow(/whole bytes/);
  });

  const ok = entry("U8", "[4]", 0, 4);
  const cases: [string, Uint8Array, string | undefined, RegExp][] = [
    ["an empty file", new Uint8Array(), undefined, /0 bytes are too few/],
    ["half a length", new Uint8Array(7), undefined, /too few/],
    ["a header beyond the file", fileOf("{}", 0, 3), undefined, /header of 3 bytes in a file of 10/],
    ["a header of 2^64 − 1 bytes", new Uint8Array(16).fill(255), undefined, /header of 18446744073709551615/],
    ["a Git LFS pointer", utf8("version https://git-lfs.github.com/spec/v1\noid sha256:0"), undefined, /git lfs pull/],
    ["a web page", utf8("\n<!DOCTYPE html><html>"), undefined, /web page/],
    ["a PyTorch file", utf8("PK\u0003\u0004archive/data.pkl"), undefined, /ZIP archive/],
    ["a deep type", fileOf(`{"a":{"dtype":${"[".repeat(5e4)}${"]".repeat(5e4)}}}`, 0), undefined, /levels deep/],
    ["no header", fileOf("", 0), undefined, /does not begin with/],
    ["a byte order mark", fileOf("\uFEFF{}", 0), undefined, /does not begin with/],
    ["an array", fileOf("[]", 0), undefined, /does not begin with/],
    ["half JSON", fileOf('{"a":', 0), undefined, /not JSON/],
    ["bytes that are not UTF-8", fileOf("{}", 0).fill(255, 9, 10), undefined, /not UTF-8/],
    ["a tensor twice", fileOf(`{"a":${ok},"a":${ok}}`, 4), "a", /twice/],
    ["a tensor twice, once escaped", fileOf(`{"a":${ok},"\\u0061":${ok}}`, 4), "a", /twice/],
    [
      "a field twice",
      fileOf(`{"a":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}}`, 4),
      "dtype",
      /twice/,
    ],
    ["an entry that is a list", fileOf(`{"a":[]}`, 0), "a", /not a JSON object/],
    ["an unknown dtype", fileOf(`{"a":${entry("F33", "[4]", 0, 4)}}`, 4), "a", /dtype "F33"/],
    ["a dtype of the prototype", fileOf(`{"a":${entry("toString", "[4]", 0, 4)}}`, 4), "a", /dtype "toString"/],
    ["no dtype", fileOf(`{"a":{"shape":[4],"data_offsets":[0,4]}}`, 4), "a", /dtype missing/],
    ["a negative size", fileOf(`{"a":${entry("U8", "[-4]", 0, 4)}}`, 4), "a", /shape \[-4\]/],
    ["a fractional size", fileOf(`{"a":${entry("U8", "[0.5]", 0, 4)}}`, 4), "a", /shape/],
    ["a size as text", fileOf(`{"a":${entry("U8", '["4"]', 0, 4)}}`, 4), "a", /shape/],
    ["a size beyond 2^53", fileOf(`{"a":${entry("U8", "[9007199254740993]", 0, 4)}}`, 4), "a", /shape/],
    ["a product beyond 2^53", fileOf(`{"a":${entry("U8", "[4294967296,4294967296]", 0, 4)}}`, 4), "a", /2⁵³/],
    ["one offset", fileOf(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0]}}`, 4), "a", /data_offsets/],
    ["offsets in reverse", fileOf(`{"a":${entry("U8", "[4]", 4, 0)}}`, 4), "a", /data_offsets \[4, 0\]/],
    ["offsets beyond the data", fileOf(`{"a":${entry("U8", "[5]", 0, 5)}}`, 4), "a", /inside the 4 bytes/],
    ["a length that is not shape × dtype", fileOf(`{"a":${entry("F32", "[4]", 0, 4)}}`, 4), "a", /expected 16 bytes/],
    ["an overlap", fileOf(`{"a":${ok},"b":${entry("U8", "[2]", 3, 5)}}`, 5), "b", /overlap/],
    ["a hole", fileOf(`{"a":${ok},"b":${entry("U8", "[1]", 5, 6)}}`, 6), "b", /hole/],
    ["bytes after the last tensor", fileOf(`{"a":${ok}}`, 5), undefined, /tensors end at byte/],
    ["metadata that is no object", fileOf(`{"__metadata__":1}`, 0), "__metadata__", /not a JSON object/],
    ["metadata of numbers", fileOf(`{"__metadata__":{"x":1}}`, 0), "__metadata__.x", /not a string/],
  ];
  it.each(cases)("refuses %s", async (_, bytes, field, message) => {
    const error: unknown = await read(bytes).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(FormatError);
    const { details, message: text } = error as FormatError;
    expect(details.file).toBe("bad.safetensors");
    expect(details.field).toBe(field);
    expect(text).toMatch(message);
  });

  it("keeps messages short whatever the file holds", async () => {
    const header = `{"a":${entry("x".repeat(10_000), `[${"1,".repeat(5000)}1]`, 0, 4)}}`;
    const error = (await read(fileOf(header, 4)).catch((caught: unknown) => caught)) as Error;
    expect(error.message.length).toBeLessThan(500);
  });
});

const tensorOf = (name: string, dtype: DType, shape: number[], seed: number): TensorToWrite & { all: Uint8Array } => {
  const all = Uint8Array.from({ length: byteLengthOf({ dtype, shape }) }, (_, i) => (i * 31 + seed) % 256);
  return {
    name,
    dtype,
    shape,
    all,
    *bytes() {
      for (let i = 0; i < all.length; i += 7) yield all.subarray(i, i + 7);
    },
  };
};

async function write(tensors: TensorToWrite[], maxShardBytes?: number): Promise<Map<string, Uint8Array>> {
  const files = new Map([["config.json", utf8("{}")]]);
  await writeSafetensors(memorySinks(files), tensors, { maxShardBytes });
  return files;
}

describe("safetensors writer", () => {
  const anyTensor = fc.record({
    name: fc.string({ unit: "grapheme", maxLength: 12 }).filter((name) => name !== "__metadata__"),
    dtype: fc.constantFrom(...(Object.keys(dtypeBytes) as DType[]).filter((dtype) => dtypeBytes[dtype] >= 1)),
    shape: fc.array(fc.nat(5), { maxLength: 4 }),
  });

  it("writes what the reader reads, aligned, in one file or many", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(anyTensor, { selector: (tensor) => tensor.name, maxLength: 12 }),
        fc.integer({ min: 1, max: 400 }),
        async (specs, maxShardBytes) => {
          const tensors = specs.map(({ name, dtype, shape }, i) => tensorOf(name, dtype, shape, i));
          const files = await write(tensors, maxShardBytes);
          const checkpoint = await openCheckpoint(memoryFiles("m", files));
          expect([...checkpoint.tensors.keys()].toSorted()).toEqual(tensors.map((tensor) => tensor.name).toSorted());
          for (const { name, dtype, shape, all } of tensors) {
            expect(checkpoint.tensors.get(name)).toMatchObject({ name, dtype, shape });
            expect(await checkpoint.read(name)).toEqual(all);
          }
          for (const [name, bytes] of files) {
            if (!name.endsWith(".safetensors")) continue;
            const header = await read(bytes);
            expect(header.metadata.get("format")).toBe("pt");
            const stored = [...header.tensors.values()];
            for (const tensor of stored) expect(tensor.byteOffset % dtypeBytes[tensor.dtype]).toBe(0);
            const size = stored.reduce((sum, tensor) => sum + tensor.byteLength, 0);
            const largest = Math.max(0, ...stored.map((tensor) => tensor.byteLength));
            expect(size <= maxShardBytes || size === largest).toBe(true);
          }
        },
      ),
      { seed: 4, numRuns: 200 },
    );
  });

  it("names shards and the index as transformers does, the index last", async () => {
    const tensors = ["a", "b", "c"].map((name, i) => tensorOf(name, "F32", [4], i));
    const files = await write(tensors, 32);
    expect([...files.keys()]).toEqual([
      "config.json",
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
      "model.safetensors.index.json",
    ]);
    expect(JSON.parse(new TextDecoder().decode(files.get("model.safetensors.index.json")))).toEqual({
      metadata: { total_size: 48 },
      weight_map: {
        a: "model-00001-of-00002.safetensors",
        b: "model-00001-of-00002.safetensors",
        c: "model-00002-of-00002.safetensors",
      },
    });
    expect([...(await write(tensors)).keys()]).toEqual(["config.json", "model.safetensors"]);
  });

  it("refuses bytes of a wrong length and names that are taken, and leaves no file", async () => {
    const good = tensorOf("a", "F32", [4], 0);
    for (const bytes of [good.all.subarray(1), new Uint8Array(17)]) {
      const files = new Map<string, Uint8Array>();
      const wrong = { ...good, bytes: () => [bytes] };
      await expect(writeSafetensors(memorySinks(files), [wrong])).rejects.toThrow(UsageError);
      expect(files.size).toBe(0);
    }
    await expect(write([good, good])).rejects.toThrow(/"a" is taken/);
    await expect(write([tensorOf("__metadata__", "U8", [1], 0)])).rejects.toThrow(UsageError);
  });

  it("stops at an abort", async () => {
    const files = new Map<string, Uint8Array>();
    const signal = AbortSignal.abort();
    await expect(writeSafetensors(memorySinks(files), [tensorOf("a", "U8", [4], 0)], { signal })).rejects.toThrow(
      /abort/,
    );
    expect(files.size).toBe(0);
  });

  it("reports its progress in bytes", async () => {
    const events: number[] = [];
    await writeSafetensors(memorySinks(new Map()), [tensorOf("a", "U8", [40], 0)], {
      onProgress: ({ done, total, unit }) => {
        expect([total, unit]).toEqual([40, "bytes"]);
        events.push(done);
      },
    });
    expect(events.at(-1)).toBe(40);
  });
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FormatError, Random, UsageError } from "../../core/index.js";
import { byteLengthOf, elementCount, type Tensor, toFloat32 } from "../../tensor/index.js";
import { serializeArtifact } from "../artifact.js";
import type { Artifact } from "../artifactSchema.js";
import { memorySinks } from "../byteSink.js";
import { openCheckpoint } from "../checkpoint.js";
import { memoryFiles } from "../memory.js";
import { writeSafetensors } from "../safetensorsWriter.js";
import { packCodes, unpackCodes } from "./bits.js";
import type { TensorDeclaration } from "./declaration.js";
import type { GridCodes } from "./encodeOnGrid.js";
import { encodeTensor, type TensorToEncode } from "./encodeTensor.js";
import { type FloatDType, rounded } from "./floatDType.js";
import { encodedBytes } from "./parts.js";

/** The files of a checkpoint that holds one encoded matrix "w". */
async function filesOf(
  tensors: readonly Tensor[],
  declaration: TensorDeclaration | undefined,
): Promise<Map<string, Uint8Array>> {
  const artifact: Artifact = { rarefy: 2, ...(declaration && { tensors: { w: declaration } }) };
  const files = new Map([
    ["config.json", new TextEncoder().encode("{}")],
    ["rarefy.json", serializeArtifact(artifact)],
  ]);
  await writeSafetensors(
    memorySinks(files),
    tensors.map(({ bytes, ...info }) => ({ ...info, bytes: () => [bytes] })),
  );
  return files;
}

async function open(tensors: readonly Tensor[], declaration: TensorDeclaration | undefined) {
  return openCheckpoint(memoryFiles("m", await filesOf(tensors, declaration)));
}

/** Values of `dtype` with a share of zeros. */
function sparseValues(random: Random, length: number, sparsity: number, dtype: FloatDType): Float32Array {
  return Float32Array.from({ length }, () =>
    random.uniform() < sparsity ? 0 : rounded[dtype]((random.uniform() - 0.5) * 4),
  );
}

/** Rounds values to a grid as `compress` does: at most 2^bits codes, zero among them. */
function onGrid(
  values: Float32Array,
  rows: number,
  cols: number,
  grid: { bits: number; groupSize: number },
  kind: string,
) {
  const groups = Math.ceil(cols / grid.groupSize);
  const codes: GridCodes = {
    codes: new Int16Array(rows * cols),
    scales: new Float32Array(rows * groups),
    zeros: new Int16Array(rows * groups),
    ...grid,
  };
  const out = new Float32Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    for (let g = 0; g < groups; g++) {
      const zero =
        kind === "signed" ? 0 : kind === "middle" || kind === "bf16" ? 2 ** (grid.bits - 1) : g % 2 ** grid.bits;
      const [low, high] =
        kind === "signed" ? [1 - 2 ** (grid.bits - 1), 2 ** (grid.bits - 1) - 1] : [0, 2 ** grid.bits - 1];
      const scale = kind === "bf16" ? 2 ** -3 : Math.fround(0.1 + ((r * 7 + g) % 5) / 9);
      codes.scales[r * groups + g] = scale;
      codes.zeros[r * groups + g] = zero;
      for (let c = g * grid.groupSize; c < Math.min(cols, (g + 1) * grid.groupSize); c++) {
        const i = r * cols + c;
        codes.codes[i] = Math.min(high, Math.max(low, Math.round(values[i] / scale) + zero));
        out[i] = scale * (codes.codes[i] - zero);
      }
    }
  }
  return { values: out, grid: codes };
}

async function expectExact(tensor: TensorToEncode, dtype: FloatDType): Promise<TensorDeclaration | undefined> {
  const { tensors, declaration } = encodeTensor("w", tensor, "packed", dtype);
  const checkpoint = await open(tensors, declaration);
  expect([...checkpoint.tensors.keys()]).toEqual(["w"]);
  const info = checkpoint.tensors.get("w")!;
  expect(info.shape).toEqual(tensor.shape);
  const found = await checkpoint.readFloat32("w");
  expect(found).toEqual(tensor.values.map((value) => value + 0));
  // Rows by themselves are the same rows.
  const [rows, cols] = tensor.shape;
  const rowBytes = byteLengthOf({ dtype: info.dtype, shape: [cols] });
  const first = Math.floor(rows / 3);
  const count = Math.min(2, rows - first);
  const some = toFloat32(info.dtype, await checkpoint.read("w", first * rowBytes, count * rowBytes));
  expect(some).toEqual(found.subarray(first * cols, (first + count) * cols));
  const storedBytes = tensors.reduce((sum, part) => sum + part.bytes.byteLength, 0);
  expect(info.storedBytes ?? byteLengthOf(info)).toBe(storedBytes);
  if (declaration !== undefined) expect(encodedBytes(declaration)).toBe(storedBytes);
  return declaration;
}

const shapes = fc.record({ rows: fc.integer({ min: 1, max: 9 }), cols: fc.integer({ min: 1, max: 70 }) });
const seeds = fc.integer({ min: 0, max: 2 ** 31 });

describe("encodings", () => {
  it("packs codes of every width at every bit", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 0, max: 40 }),
        fc.array(fc.nat(255)),
        (bits, at, raw) => {
          const codes = Uint8Array.from(raw, (code) => code % 2 ** bits);
          const bytes = new Uint8Array(Math.ceil((at + codes.length * bits) / 8));
          packCodes(codes, bits, bytes, at);
          expect(unpackCodes(bytes, bits, at, codes.length)).toEqual(codes);
          if (at > 0) expect(unpackCodes(bytes, 1, 0, at).every((bit) => bit === 0)).toBe(true);
        },
      ),
    );
  });

  it("lays a bit mask out as compressed-tensors does", () => {
    // The thirteenth column keeps it from being 2:4.
    const values = Float32Array.of(0, 5, 0, 7, 1, 0, 0, 2, 0, 0, 3, 4, 0);
    const { tensors, declaration } = encodeTensor("w", { shape: [1, 13], values }, "packed", "F32");
    expect(declaration).toEqual({ encoding: "bitmask", dtype: "F32", shape: [1, 13], nonZeros: 6 });
    const parts = Object.fromEntries(tensors.map(({ name, bytes }) => [name, [...bytes]]));
    expect(parts["w.bitmask"]).toEqual([154, 12]);
    expect(parts["w.row_offsets"]).toEqual([0, 0, 0, 0]);
    expect([...toFloat32("F32", Uint8Array.from(parts["w.values"]))]).toEqual([5, 7, 1, 2, 3, 4]);
  });

  it("gives sparse values back, whatever shape, type and sparsity", async () => {
    await fc.assert(
      fc.asyncProperty(
        shapes,
        seeds,
        fc.constantFrom<FloatDType>("F32", "BF16", "F16"),
        fc.constantFrom(0, 0.3, 0.5, 0.8, 1),
        async ({ rows, cols }, seed, dtype, sparsity) => {
          const values = sparseValues(new Random(seed), rows * cols, sparsity, dtype);
          await expectExact({ shape: [rows, cols], values }, dtype);
        },
      ),
    );
  });

  it("gives codes back, with and without zeros, on every kind of grid", async () => {
    await fc.assert(
      fc.asyncProperty(
        shapes,
        seeds,
        fc.integer({ min: 2, max: 8 }),
        fc.integer({ min: 1, max: 80 }),
        fc.constantFrom("signed", "middle", "asymmetric", "bf16"),
        fc.constantFrom(0, 0.5, 0.9),
        async ({ rows, cols }, seed, bits, groupSize, kind, sparsity) => {
          const rough = sparseValues(new Random(seed), rows * cols, sparsity, "F32");
          const grid = onGrid(rough, rows, cols, { bits, groupSize }, kind);
          const declaration = await expectExact({ shape: [rows, cols], ...grid }, "F32");
          if (declaration === undefined || !("grid" in declaration) || !declaration.grid) return;
          const { tensors } = encodeTensor("w", { shape: [rows, cols], ...grid }, "packed", "F32");
          const checkpoint = await open(tensors, declaration);
          expect(checkpoint.tensors.get("w")!.grid).toMatchObject({ bits, groupSize });
          expect(await checkpoint.readScales("w", 0, rows)).toEqual(grid.grid.scales);
          expect(await checkpoint.readScales("w", rows - 1, 1)).toEqual(
            grid.grid.scales.subarray(-Math.ceil(cols / groupSize)),
          );
        },
      ),
    );
  });

  const random = new Random(3);
  const [rows, cols] = [64, 128];
  const dense = sparseValues(random, rows * cols, 0, "BF16");
  const half = sparseValues(random, rows * cols, 0.5, "BF16");
  const twoFour = dense.map((value, i) => (i % 4 < 2 ? value : 0));
  const grid4 = onGrid(dense, rows, cols, { bits: 4, groupSize: 32 }, "bf16");
  const sparseGrid4 = onGrid(half, rows, cols, { bits: 4, groupSize: 32 }, "bf16");

  it.each<[string, TensorToEncode, FloatDType, string, number]>([
    ["dense", { shape: [rows, cols], values: dense }, "BF16", "dense", rows * cols * 2],
    ["2:4", { shape: [rows, cols], values: twoFour }, "BF16", "24-bitmask", rows * cols * (1 + 1 / 8)],
    ["4 bits", { shape: [rows, cols], ...grid4 }, "F32", "grid", (rows * cols) / 2 + (rows * cols) / 16],
    ["all zeros", { shape: [rows, cols], values: new Float32Array(rows * cols) }, "BF16", "bitmask", rows * (16 + 4)],
  ])("chooses the smallest: %s", (_, tensor, dtype, encoding, bytes) => {
    const { tensors, declaration } = encodeTensor("w", tensor, "packed", dtype);
    expect(declaration?.encoding ?? "dense").toBe(encoding);
    expect(tensors.reduce((sum, part) => sum + part.bytes.byteLength, 0)).toBe(bytes);
  });

  it("chooses masked values and masked codes where they are smaller", () => {
    const masked = encodeTensor("w", { shape: [rows, cols], values: half }, "packed", "BF16").declaration;
    expect(masked).toMatchObject({ encoding: "bitmask", nonZeros: half.filter((value) => value !== 0).length });
    const codes = encodeTensor("w", { shape: [rows, cols], ...sparseGrid4 }, "packed", "F32").declaration;
    expect(codes).toMatchObject({
      encoding: "bitmask",
      grid: { bits: 4, groupSize: 32, symmetric: true, scaleDType: "BF16" },
    });
  });

  it("stores plain values when asked to, and vectors always", () => {
    expect(encodeTensor("w", { shape: [rows, cols], values: half }, "dense", "BF16").declaration).toBeUndefined();
    expect(encodeTensor("w", { shape: [4], values: new Float32Array(4) }, "packed", "F32").declaration).toBeUndefined();
  });

  it("drops codes that stand for other values, and refuses what no encoding holds", () => {
    const other = { ...grid4, values: grid4.values.map((value, i) => (i === 77 ? value + 1 : value)) };
    expect(encodeTensor("w", { shape: [rows, cols], ...other }, "packed", "F32").declaration).toBeUndefined();
    const rough = dense.map((value) => value + 1e-4);
    expect(() => encodeTensor("w", { shape: [rows, cols], values: rough }, "packed", "BF16")).toThrow(UsageError);
    expect(() => encodeTensor("w", { shape: [1], values: Float32Array.of(Number.NaN) }, "packed", "F32")).toThrow(
      /NaN/,
    );
  });

  it("stores −0 as +0", async () => {
    for (const values of [Float32Array.of(-0, 1, 2, 3), Float32Array.of(-0, -0, 0, 3)]) {
      const { tensors, declaration } = encodeTensor("w", { shape: [1, 4], values }, "packed", "BF16");
      const found = await (await open(tensors, declaration)).readFloat32("w");
      expect(Object.is(found[0], 0)).toBe(true);
    }
  });
});

describe("damaged encodings", () => {
  const values = sparseValues(new Random(4), 12 * 33, 0.6, "BF16");
  const matrices: [string, ReturnType<typeof encodeTensor>][] = [
    ["bitmask", encodeTensor("w", { shape: [12, 33], values }, "packed", "BF16")],
    [
      "24-bitmask",
      encodeTensor("w", { shape: [9, 44], values: values.map((v, i) => (i % 4 < 2 ? 1 + v : 0)) }, "packed", "F32"),
    ],
    [
      "masked codes",
      encodeTensor(
        "w",
        { shape: [12, 33], ...onGrid(values, 12, 33, { bits: 8, groupSize: 16 }, "asymmetric") },
        "packed",
        "F32",
      ),
    ],
    [
      "codes",
      encodeTensor(
        "w",
        {
          shape: [12, 33],
          ...onGrid(
            values.map((v) => v + 1),
            12,
            33,
            { bits: 3, groupSize: 9 },
            "asymmetric",
          ),
        },
        "packed",
        "F32",
      ),
    ],
  ];

  it("covers every encoding", () => {
    expect(matrices.map(([, { declaration }]) => declaration?.encoding)).toEqual([
      "bitmask",
      "24-bitmask",
      "bitmask",
      "grid",
    ]);
  });

  it.each(matrices)(
    "%s: any flipped byte gives a FormatError or values of the right number",
    async (_, { tensors, declaration }) => {
      const random = new Random(5);
      let refused = 0;
      for (let i = 0; i < 600; i++) {
        const damaged = tensors.map((part) => ({ ...part, bytes: part.bytes.slice() }));
        const { bytes } = damaged[random.integer(damaged.length)];
        bytes[random.integer(bytes.length)] ^= 1 + random.integer(255);
        const checkpoint = await open(damaged, declaration);
        try {
          expect((await checkpoint.readFloat32("w")).length).toBe(elementCount(declaration!.shape));
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
          expect((error as FormatError).details.field).toBe("w");
          refused++;
        }
      }
      // A changed code is another code; a changed mask or offset contradicts the values.
      if (declaration!.encoding !== "grid") expect(refused).toBeGreaterThan(50);
    },
  );

  it.each(matrices)(
    "%s: a declaration that does not fit its parts is refused when it is opened",
    async (_, { tensors, declaration }) => {
      const [rows, cols] = declaration!.shape;
      const wrong: unknown[] = [
        { ...declaration, shape: [rows + 1, cols] },
        { ...declaration, shape: [rows, cols + 64] },
        { ...declaration, shape: [2 ** 31, 2 ** 31] },
        { ...declaration, shape: [rows] },
        { ...declaration, shape: [rows, 0] },
        { ...declaration, encoding: "dense" },
        { ...declaration, dtype: "I64" },
        { ...declaration, nonZeros: 2 ** 32 - 1 },
        { ...declaration, extra: 1 },
        ...("grid" in declaration! && declaration.grid
          ? [{ bits: 7 }, { bits: 9 }, { groupSize: 1 }, { groupSize: 0 }, { scaleDType: "F16" }].map((change) => ({
              ...declaration,
              grid: { ...declaration.grid, ...change },
            }))
          : []),
      ];
      for (const entry of wrong) {
        const files = await filesOf(tensors, declaration);
        files.set("rarefy.json", new TextEncoder().encode(JSON.stringify({ rarefy: 1, tensors: { w: entry } })));
        await expect(openCheckpoint(memoryFiles("m", files)), JSON.stringify(entry)).rejects.toThrow(FormatError);
      }
      for (const missing of tensors) {
        const rest = tensors.filter((part) => part !== missing);
        await expect(open(rest, declaration)).rejects.toThrow(/its part \w+ is missing/);
      }
      const plain: Tensor = { name: "w", dtype: "U8", shape: [0], bytes: new Uint8Array(0) };
      await expect(open([...tensors, plain], declaration)).rejects.toThrow(/plain values/);
    },
  );
});

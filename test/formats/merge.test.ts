import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { type Adapter, addPair, memoryFiles, memorySinks, openCheckpoint, writeAdapter } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { mergeAdapterToDirectory } from "../../src/jobs/index.js";
import { compress, logits, relativeDifference } from "../compress/support.js";
import { normals } from "../contract/harness.js";
import { path } from "../golden/golden.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { stores } from "../support/storeAs.mjs";
import { quantizedModel } from "./quantizedModel.js";

const root = await mkdtemp(join(tmpdir(), "rarefy-merge-"));
afterAll(() => rm(root, { recursive: true }));

const name = "model.layers.0.mlp.up_proj";
const [rows, cols, rank] = [160, 64, 2];
const pair = { a: normals(1, rank * cols), b: normals(2, rows * rank), rank, rows, cols, scale: 0.1 };
const adapter: Adapter = { kind: "lora", modules: new Map([[name, pair]]) };

/** Merges the pair into a model of these files. @returns the values of the adapted matrix, and of what was read for it */
async function merged(id: string, files: ReadonlyMap<string, Uint8Array>) {
  const [source, output] = [join(root, id), join(root, `${id}-merged`)];
  await mkdir(source);
  for (const [file, bytes] of files) await writeFile(join(source, file), bytes);
  const adapterFiles = new Map<string, Uint8Array>();
  await writeAdapter(memorySinks(adapterFiles), adapter);
  await mergeAdapterToDirectory(directoryFiles(source), memoryFiles("adapter", adapterFiles), output);
  return openCheckpoint(directoryFiles(output));
}

test("into what GPTQ left: the pair is added to the values that the codes stand for, and nothing says codes any more", async () => {
  const { expected, files } = await quantizedModel("llama", stores["gptq 4 bits"]);
  const made = await merged("gptq", files);
  const wanted = addPair(expected.values(`${name}.weight`), pair);
  expect(relativeDifference(await made.readFloat32(`${name}.weight`), wanted)).toBeLessThan(1e-6);
  const config = JSON.parse(await readFile(join(root, "gptq-merged", "config.json"), "utf8"));
  expect(config).not.toHaveProperty("quantization_config");
  expect(config).toEqual(expected.config);
  expect([...made.tensors.keys()].filter((tensor) => /q(?:weight|zeros)|scales|g_idx/.test(tensor))).toEqual([]);
  expected.set(`${name}.weight`, [rows, cols], wanted);
  expect(relativeDifference(await logits(made), await logits(expected))).toBeLessThan(1e-5);
  await made.close();
});

test("into a product of low rank: the pair is added to the product, and the matrix is one", async () => {
  const source = await MemoryCheckpoint.golden("llama");
  const { files, opened } = await compress(source, {
    stages: [{ type: "lowRank", method: "svd", rank: 8, targets: ["**.up_proj.weight"] }],
  });
  const factor = (half: string) => opened.readFloat32(`${name}.low_rank.${half}`);
  const product = { a: await factor("right"), b: await factor("left"), rank: 8, rows, cols, scale: 1 };
  const made = await merged("factors", files);
  const wanted = addPair(addPair(new Float32Array(rows * cols), product), pair);
  expect(relativeDifference(await made.readFloat32(`${name}.weight`), wanted)).toBeLessThan(1e-6);
  expect([...made.tensors.keys()].filter((tensor) => tensor.includes("low_rank"))).toEqual([]);
  expect((await logits(made)).every(Number.isFinite)).toBe(true);
  await made.close();
});

test.each([
  ["qwen2", "model.layers.1.self_attn.k_proj", "outputs"],
  ["gpt2", "transformer.h.0.attn.c_attn", "outputs"],
  ["gpt2", "transformer.h.0.mlp.c_proj", "inputs"],
] as const)(
  "factors of IA³ in %s multiply what %s gives, its bias too, as PEFT does; those of inputs leave the bias",
  async (family, module, of) => {
    const before = await openCheckpoint(directoryFiles(path(`arch/${family}`)));
    const weight = await before.readFloat32(`${module}.weight`);
    const bias = await before.readFloat32(`${module}.bias`);
    const outputs = bias.length;
    const inputs = weight.length / outputs;
    const factors = normals(3, of === "outputs" ? outputs : inputs);
    const adapterFiles = new Map<string, Uint8Array>();
    await writeAdapter(memorySinks(adapterFiles), { kind: "ia3", modules: new Map([[module, { factors, of }]]) });
    const output = join(root, `${family}-${of}`);
    await mergeAdapterToDirectory(directoryFiles(path(`arch/${family}`)), memoryFiles("adapter", adapterFiles), output);
    const made = await openCheckpoint(directoryFiles(output));
    // GPT-2 stores [in, out].
    const outputOf = (i: number) => (family === "gpt2" ? i % outputs : Math.floor(i / inputs));
    const inputOf = (i: number) => (family === "gpt2" ? Math.floor(i / outputs) : i % inputs);
    const wanted = weight.map((w, i) => w * factors[of === "outputs" ? outputOf(i) : inputOf(i)]);
    expect(relativeDifference(await made.readFloat32(`${module}.weight`), wanted)).toBeLessThan(1e-6);
    const wantedBias = of === "outputs" ? bias.map((b, i) => b * factors[i]) : bias;
    expect(bias.some((b) => b !== 0)).toBe(true);
    expect(relativeDifference(await made.readFloat32(`${module}.bias`), wantedBias)).toBeLessThan(1e-6);
    await Promise.all([before.close(), made.close()]);
  },
);

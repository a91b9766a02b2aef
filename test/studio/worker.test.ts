import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { unzipSync } from "fflate";
import { parseRecipe, parseRecipeText } from "rarefy/compress";
import { evaluateQuality } from "rarefy/eval";
import {
  compressionOf,
  ggufFiles,
  type ModelFiles,
  ModelStore,
  memoryFiles,
  memorySource,
  openCheckpoint,
  sha256Hex,
} from "rarefy/io";
import { directoryFiles } from "rarefy/io/node";
import { compressToDirectory } from "rarefy/jobs";
import { openModel } from "rarefy/pipeline";
import { loadTokenizer, type TokenizedText, tokenizeText } from "rarefy/text";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { CompressRequest, ExportRequest } from "../../apps/studio/src/protocol.js";
import type { CallContext } from "../../apps/studio/src/rpc.js";
import { exampleRecipe, methods } from "../../apps/studio/src/views/methods.js";
import { FakeDirectory } from "../support/fakeDirectory.js";
import { ensureBuilt, root } from "../support/rarefy.js";
import { goldenModel } from "./models.js";

// What the studio's workers do, without a page: its code on the built package, with a private file system in memory.
ensureBuilt();
const { compress } = await import("../../apps/studio/src/worker/compress.js");
const { exported } = await import("../../apps/studio/src/worker/export.js");
const { removeSaved, savingMs } = await import("../../apps/studio/src/worker/exportFolder.js");
const { inspect } = await import("../../apps/studio/src/worker/inspect.js");
const { report } = await import("../../apps/studio/src/worker/report.js");
const { Session } = await import("../../apps/studio/src/worker/session.js");

const context: CallContext = { signal: new AbortController().signal, emit() {} };
const window = 32;
const windows = 2;

let scratch: string;
let source: string;
let text: string;
let evaluated: TokenizedText;
const disk = new FakeDirectory();

beforeAll(async () => {
  vi.stubGlobal("navigator", {
    hardwareConcurrency: 1,
    storage: { estimate: async () => ({}), getDirectory: async () => disk },
  });
  scratch = mkdtempSync(join(tmpdir(), "rarefy-studio-"));
  source = join(scratch, "tiny");
  mkdirSync(source);
  for (const [name, bytes] of goldenModel("llama")) writeFileSync(join(source, name), bytes);
  const store = await ModelStore.open();
  await store.add({ ...directoryFiles(source), location: "tiny" });
  text = (await readFile(join(root, "models/text/books-eval.txt"), "utf8")).slice(0, 4000);
  evaluated = await tokenized(directoryFiles(source));
});
afterAll(() => {
  vi.unstubAllGlobals();
  rmSync(scratch, { recursive: true, force: true });
});

const tokenized = async (files: ModelFiles) =>
  tokenizeText(await loadTokenizer(files), text, { maxTokens: window * windows });

function request(name: string, work: CompressRequest["work"]): CompressRequest {
  const file = new File([text], "books.txt");
  const evaluation = { text: { file }, windows };
  return { location: "tiny", name, work, calibration: { file }, window, windows, evaluation, device: "cpu" };
}

async function perplexity(files: ModelFiles): Promise<number> {
  using opened = await openModel(files, { weights: "f32" });
  const [quality] = await evaluateQuality([{ name: "it", model: opened.model }], evaluated, {
    window,
    maxWindows: windows,
  });
  return quality.perplexity;
}

/** The bytes of all tensors of a model, by name. */
async function weightsOf(files: ModelFiles): Promise<Map<string, string>> {
  const checkpoint = await openCheckpoint(files);
  const weights = new Map<string, string>();
  for (const name of checkpoint.tensors.keys()) weights.set(name, await sha256Hex(await checkpoint.read(name)));
  await checkpoint.close();
  return weights;
}

describe("compression in the studio", () => {
  const choices = { pattern: "unstructured", share: 40, bits: 4, recipe: exampleRecipe };
  const cases = [
    { id: "sparsegpt" },
    { id: "magnitude" },
    { id: "gptq" },
    { id: "rtn" },
    { id: "recipe" },
    { id: "wanda", pattern: "heads" },
    { id: "wanda", pattern: "neurons" },
  ].map(({ id, ...choice }) => ({ id, name: `tiny-${methods[id].suffix({ ...choices, ...choice })}`, choice }));

  test.each(cases)("$name has the bytes that the command line writes", async ({ id, name, choice }) => {
    const work = methods[id].work({ ...choices, ...choice }) as { recipe: string };
    const { location } = await compress({ ...request(name, work), evaluation: undefined }, context);
    expect(location).toBe(name);
    const recipe = await parseRecipeText(work.recipe, "the recipe");
    const written = join(scratch, name);
    await compressToDirectory(directoryFiles(source), written, {
      recipe: { ...recipe, calibration: { ...recipe.calibration, window, windows } },
      calibration: evaluated,
      store: "packed",
    });
    const stored = await (await ModelStore.open()).files(name);
    expect(await weightsOf(stored)).toEqual(await weightsOf(directoryFiles(written)));
    const checkpoint = await openCheckpoint(stored);
    const { stages } = parseRecipe(compressionOf(checkpoint.artifact!)!.recipe, "the artifact");
    expect("method" in stages[0] && stages[0].method).toBe(id === "recipe" ? "sparsegpt" : id);
    await checkpoint.close();
  });

  test("what was made of a model is measured beside it, and reported", async () => {
    const { before, after } = await compress(request("tiny-measured", methods.rtn.work(choices)), context);
    expect(before!.perplexity! / (await perplexity(directoryFiles(source)))).toBeCloseTo(1, 6);
    const stored = await (await ModelStore.open()).files("tiny-measured");
    expect(after.perplexity! / (await perplexity(stored))).toBeCloseTo(1, 6);
    expect(after.perplexity).not.toBe(before!.perplexity);
    expect(after.bytesOnDisk).toBeLessThan(before!.bytesOnDisk! / 1.8);
    expect(await report("tiny-measured")).toContain("Before and after");
  });

  test("TEAL's thresholds skip the share that was asked for, and leave the weights as they are", async () => {
    const { before, after } = await compress(request("tiny-teal", methods.teal.work(choices)), context);
    expect(after.activationSparsity).toBeGreaterThan(0.35);
    expect(after.activationSparsity).toBeLessThan(0.45);
    expect(after.perplexity).not.toBe(before!.perplexity);
    const stored = await (await ModelStore.open()).files("tiny-teal");
    expect(await weightsOf(stored)).toEqual(await weightsOf(directoryFiles(source)));
    using opened = await openModel(stored);
    const { model } = opened;
    const variant = { name: "it", model, thresholds: model.thresholds };
    const [quality] = await evaluateQuality([variant], evaluated, { window, maxWindows: windows });
    expect(quality.perplexity / after.perplexity!).toBeCloseTo(1, 6);
    expect(await report("tiny-teal")).toContain("Before and after");
  });

  test("a recipe that is none is refused before anything is stored, and one that fails leaves nothing", async () => {
    await expect(compress(request("none", { recipe: "stages: {" }), context)).rejects.toThrow("the recipe");
    const unknown = JSON.stringify({ version: 1, stages: [{ type: "prune", method: "guess", pattern: 0.5 }] });
    await expect(compress(request("none", { recipe: unknown }), context)).rejects.toThrow("guess");
    const stopped = { ...context, signal: AbortSignal.abort(new Error("stopped")) };
    await expect(compress(request("none", methods.gptq.work(choices)), stopped)).rejects.toThrow();
    expect((await (await ModelStore.open()).list()).map(({ location }) => location)).not.toContain("none");
  });
});

describe("export from the studio", () => {
  const take = (form: ExportRequest["form"]) => exported({ location: "tiny", name: "tiny", form }, context);
  const bytesOf = async (file: File | undefined) => new Uint8Array(await file!.arrayBuffer());

  test.each(["f16", "q8_0", "q4_0"] as const)(
    "as GGUF, %s, it has the weights, rounded as the type does",
    async (type) => {
      const file = await take({ gguf: type });
      expect(file!.name).toBe(`tiny-${type}.gguf`);
      const bytes = await bytesOf(file);
      const files = await ggufFiles("tiny.gguf", async () => memorySource("tiny.gguf", bytes));
      const relative = (await perplexity(files)) / (await perplexity(directoryFiles(source)));
      expect(Math.abs(relative - 1)).toBeLessThan({ f16: 1e-3, q8_0: 1e-2, q4_0: 0.2 }[type]);
      expect(relative).not.toBe(1);
    },
  );

  test("as an archive and into a folder it has the same files", async () => {
    const file = await take({ zip: true });
    expect(file!.name).toBe("tiny.zip");
    const entries = Object.entries(unzipSync(await bytesOf(file)));
    const folder = new FakeDirectory();
    expect(await take({ folder: folder as unknown as FileSystemDirectoryHandle })).toBeUndefined();
    expect(entries.map(([name]) => name).sort()).toEqual([...folder.files.keys()].map((name) => `tiny/${name}`).sort());
    for (const [name, bytes] of entries) {
      const original = await readFile(join(source, name.slice(5)));
      expect([name, Buffer.compare(bytes, original)]).toEqual([name, 0]);
      expect([name, Buffer.compare(folder.files.get(name.slice(5))!.bytes, original)]).toEqual([name, 0]);
    }
  });

  test("one does not touch another that the browser may still be saving; those that must be saved are removed", async () => {
    const built = () => disk.directories.get("rarefy-exports")!.files;
    const [first, second] = await Promise.all([take({ zip: true }), take({ gguf: "f16" })]);
    const before = await bytesOf(first);
    await take({ zip: true });
    expect(Buffer.compare(await bytesOf(first), before)).toBe(0);
    expect((await bytesOf(second)).length).toBeGreaterThan(0);
    const names = [...built().keys()];
    expect(names.length).toBeGreaterThanOrEqual(3);
    const age = (spareMs: number) => {
      for (const file of built().values()) file.lastModified = Date.now() - savingMs(file.bytes.length) + spareMs;
    };
    age(10_000);
    await removeSaved();
    expect([...built().keys()]).toEqual(names);
    age(-1);
    await removeSaved();
    expect(built().size).toBe(0);
    await take({ zip: true });
    age(-1);
    await take({ zip: true });
    expect(built().size).toBe(1);
  });
});

test("the load of experts is shown as the router gives it", async () => {
  const files = memoryFiles("experts", goldenModel("olmoe"));
  using session = await Session.open(files, { location: "experts", device: "cpu", base: "" }, context);
  const shown = { location: "experts", skipping: "dense", text: "of the house" } as const;
  const { experts, tokens, attention } = await inspect(shown, session, context);
  expect(tokens.join("")).toContain("of the house");
  expect(attention).toHaveLength(2);
  expect(experts.map(({ layer }) => layer)).toEqual([0, 1]);
  for (const { loads } of experts) {
    expect(loads).toHaveLength(8);
    // Two experts a token.
    const counts = loads.map((load) => load * 2 * tokens.length);
    for (const count of counts) expect(count).toBeCloseTo(Math.round(count), 6);
    expect(counts.reduce((sum, count) => sum + count)).toBeCloseTo(2 * tokens.length, 6);
    expect(Math.max(...counts)).toBeLessThanOrEqual(tokens.length);
  }
  expect(experts[0].loads).not.toEqual(experts[1].loads);
});

import { expect, test } from "vitest";
import { parseModelConfig } from "../../src/arch/index.js";
import type { JobOptions } from "../../src/core/index.js";
import { memorySource } from "../../src/io/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import {
  type ActivationThresholds,
  loadModel,
  type Model,
  type OffloadedFile,
  type OffloadOptions,
  type OffloadShape,
  writeOffloaded,
} from "../../src/model/index.js";
import { placeExperts } from "../../src/model/offload/expertPlacement.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

/** Mixtures whose experts are read as they are needed give the bits of those in memory, and stay within their bound. */

async function bundlesOf(checkpoint: MemoryCheckpoint, shape: OffloadShape): Promise<OffloadedFile> {
  const parts: Uint8Array[] = [];
  const sink = { write: async (bytes: Uint8Array) => void parts.push(bytes.slice()) };
  const { spec } = parseModelConfig(checkpoint.config, "config.json");
  const { byteLength } = await writeOffloaded(checkpoint, spec, shape, sink, () => undefined);
  const bytes = new Uint8Array(Buffer.concat(parts));
  expect(bytes.byteLength).toBe(byteLength);
  return { shape, counted: false, source: memorySource("offload.bin", bytes) };
}

const prompt = Uint32Array.of(3, 17, 5, 30, 9, 11, 2);
const decoded = [7, 21, 7, 2, 33, 7];

/** The logits of a prompt and of tokens after it, as bits. */
async function logitsOf(model: Model): Promise<number[][]> {
  using cache = model.createCache(32);
  const rows: number[][] = [];
  const run = async (tokens: Uint32Array, start: number) => {
    const logits = (await model.forward(tokens, cache, start))!;
    rows.push([...new Uint32Array((await model.backend.read(logits)).buffer)]);
    model.backend.release(logits);
  };
  await run(prompt, 0);
  for (const [t, token] of decoded.entries()) await run(Uint32Array.of(token), prompt.length + t);
  return rows;
}

const shapeOf = (weights: OffloadShape["weights"]): OffloadShape => ({ weights, layout: "experts", bundled: true });

async function compare(
  backend: Backend,
  name: string,
  weights: OffloadShape["weights"],
  thresholds?: ActivationThresholds,
) {
  const checkpoint = await MemoryCheckpoint.golden(name);
  const file = await bundlesOf(checkpoint, shapeOf(weights));
  const bundle = placeExperts(parseModelConfig(checkpoint.config, "config.json").spec, weights).streams[0].bytes;
  let wanted: number[][];
  {
    using whole = await loadModel(checkpoint, backend, { weights, structure: "dense", thresholds });
    wanted = await logitsOf(whole);
  }
  const load = (options: OffloadOptions) =>
    loadModel(checkpoint, backend, { weights, structure: "dense", thresholds, offload: { file, options } });
  const refused = (await load({ residentBytes: 1 }).catch((error: Error) => error.message)) as string;
  const residentBytes = Number(/give at least (\d+)/.exec(refused)![1]);
  for (const options of [{}, { residentBytes }, { residentBytes, pipelined: false }]) {
    using model = await load(options);
    const { fixedBytes, roomBytes, offloadedBytes } = model.offload!.plan;
    if ("residentBytes" in options) {
      expect(fixedBytes + roomBytes).toBeLessThanOrEqual(residentBytes);
      expect(roomBytes).toBeLessThan(offloadedBytes);
    }
    expect(await logitsOf(model), JSON.stringify({ name, weights, ...options })).toEqual(wanted);
    const { units, hits, bytesRead } = model.offload!.takeCounters();
    // Every expert is one read, and with room for all it is read once.
    expect(bytesRead).toBe((units - hits) * bundle);
    expect(bytesRead).toBeGreaterThan(0);
    if (!("residentBytes" in options)) expect(bytesRead).toBeLessThanOrEqual(offloadedBytes);
  }
}

test.each([
  ["mixtral", "bf16"],
  ["olmoe", "q8"],
  ["olmoe", "q4"],
  // Biases of experts, and fused tensors.
  ["gpt_oss", "f32"],
  // Shared experts and dense first layers stay.
  ["deepseek_v3", "bf16"],
] as const)("experts of %s in %s give the bits of the model in memory, with any room", async (name, weights) => {
  using backend = await openBackend("wasm", { threads: 1 });
  await compare(backend, name, weights);
});

test("experts behind thresholds, on the reference backend", async () => {
  using backend = await openBackend("reference");
  const roles = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
  const maps = Array.from({ length: 2 }, () => Object.fromEntries(roles.map((role) => [role, 0.05])));
  await compare(backend, "olmoe", "q8", { maps });
});

test("what cannot be: a model without experts, experts that are watched", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  const dense = await MemoryCheckpoint.golden("llama");
  await expect(bundlesOf(dense, shapeOf("bf16"))).rejects.toThrow("a llama model has no experts to offload");
  const checkpoint = await MemoryCheckpoint.golden("olmoe");
  const offload = { file: await bundlesOf(checkpoint, shapeOf("bf16")), options: {} };
  using model = await loadModel(checkpoint, backend, { weights: "bf16", offload });
  using cache = model.createCache(8);
  const site = model.config.spec.blocks[0].steps.flatMap((step) => (step.do === "mixture" ? [step.site.id] : []));
  const tap = { sites: site, onActivation: async () => {} };
  await expect(model.forward(prompt, cache, 0, { tap, logits: "none" })).rejects.toThrow("cannot be watched");
});

test("loading says how far it is of what is read, without the experts that stay in the file", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  const checkpoint = await MemoryCheckpoint.golden("mixtral");
  const file = await bundlesOf(checkpoint, shapeOf("bf16"));
  let last: { done: number; total?: number } | undefined;
  const onProgress: JobOptions["onProgress"] = ({ stage, done, total }) => {
    if (stage === "load weights") last = { done, total };
  };
  using _ = await loadModel(checkpoint, backend, { weights: "bf16", offload: { file, options: {} }, onProgress });
  expect(last!.done).toBe(last!.total);
});

import { parseModelConfig } from "../../../src/arch/index.js";
import { ModelStore, memoryFiles, openCheckpoint } from "../../../src/io/index.js";
import { serializeOffload, writeOffloaded } from "../../../src/model/index.js";
import { openModel } from "../../../src/pipeline/index.js";
import { collect, generate } from "../../../src/runtime/index.js";
import type { OffloadRequest, OffloadResult } from "./main.js";

/** Puts a model with its bundles into the private file system, and runs it from there with less memory than it takes. */
addEventListener("message", ({ data }: MessageEvent<OffloadRequest>) => {
  run(data).then(postMessage, (error) => postMessage({ problem: String(error) }));
});

async function run(data: OffloadRequest): Promise<OffloadResult> {
  const files = new Map<string, Uint8Array>();
  for (const name of ["config.json", "model.safetensors"]) {
    files.set(name, new Uint8Array(await (await fetch(`${data.model}/${name}`)).arrayBuffer()));
  }
  const checkpoint = await openCheckpoint(memoryFiles("whole", files));
  const { spec } = parseModelConfig(checkpoint.config, "config.json");
  const shape = { weights: "q8", layout: "inputs", bundled: true } as const;
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const sink = { write: async (bytes: Uint8Array) => void parts.push(Uint8Array.from(bytes)) };
  const { byteLength } = await writeOffloaded(checkpoint, spec, shape, sink, () => undefined);
  files.set("offload.bin", new Uint8Array(await new Blob(parts).arrayBuffer()));
  files.set("offload.json", serializeOffload({ offload: 1, ...shape, byteLength, counted: false }));
  const store = await ModelStore.open();
  await store.add(memoryFiles("stored", files));
  const { residentBytes, threads, prompt, count } = data;
  const stored = await store.files("stored", { inPlace: true });
  using opened = await openModel(stored, { weights: "q8", threads, offload: { residentBytes } });
  const { tokenIds } = await collect(generate(opened.model, prompt, { maxTokens: count, stopIds: [] }));
  const { plan } = opened.model.offload!;
  const counters = opened.model.offload!.takeCounters();
  return { tokens: [...tokenIds], plan, bytesRead: counters.bytesRead };
}

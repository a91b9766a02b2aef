import { readdirSync, readFileSync, statSync } from "node:fs";
import { afterEach, expect, test, vi } from "vitest";
import { memorySinks } from "../../src/io/byteSink.js";
import { memoryFiles, urlFiles } from "../../src/io/index.js";
import { writeSafetensors } from "../../src/io/safetensorsWriter.js";
import { openModel } from "../../src/pipeline/index.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { sendBytes, serve } from "../support/httpServer.js";

/** What opening a model costs besides its weights. */

afterEach(() => vi.unstubAllGlobals());

test("over HTTP a model is opened with a few large requests, and no byte of its weights comes twice", async () => {
  const directory = "models/tiny-6m";
  const names = readdirSync(directory);
  await using server = await serve((request, response) => {
    const name = request.url!.slice(1);
    if (!names.includes(name)) return response.writeHead(404).end();
    sendBytes(request, response, readFileSync(`${directory}/${name}`));
  });
  using _opened = await openModel(urlFiles(`${server.origin}/`), { weights: "q8", threads: 1 });
  const { size } = statSync(`${directory}/model.safetensors`);
  // Config, generation config, two files that most models lack; the weights in pieces of 4 MiB.
  expect(server.requests.length).toBeLessThanOrEqual(6 + Math.ceil(size / 2 ** 22));
  const ranges = server.requests.filter((request) => request.includes("/model.safetensors "));
  const asked = ranges.map((request) => /bytes=(\d+)-(\d+)/.exec(request)!.slice(1).map(Number));
  // The last may ask beyond the end.
  const sent = asked.reduce((sum, [first, last]) => sum + Math.min(last + 1, size) - first, 0);
  expect([asked.length === ranges.length, sent]).toEqual([true, size]);
});

test("a model with zeros that is opened and disposed of again and again takes its own memory only", async () => {
  const { config, tensors } = await MemoryCheckpoint.golden("llama");
  for (const { shape, bytes } of tensors.values()) {
    // Half of every four values 0: formats without zeros are tried, and measured.
    const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    if (shape.length === 2) for (let i = 0; i < values.length; i++) if (i % 4 < 2) values[i] = 0;
  }
  const files = new Map([["config.json", new TextEncoder().encode(JSON.stringify(config))]]);
  const written = [...tensors.values()].map(({ bytes, ...tensor }) => ({ ...tensor, bytes: () => [bytes] }));
  await writeSafetensors(memorySinks(files), written);

  const memories: WebAssembly.Memory[] = [];
  const { Memory } = WebAssembly;
  vi.stubGlobal("WebAssembly", {
    ...Object.fromEntries(
      Object.getOwnPropertyNames(WebAssembly).map((name) => [name, Reflect.get(WebAssembly, name)]),
    ),
    Memory: class extends Memory {
      constructor(descriptor: WebAssembly.MemoryDescriptor) {
        super(descriptor);
        memories.push(this);
      }
    },
  });
  const bytesOf = async () => {
    memories.length = 0;
    using opened = await openModel(memoryFiles("m", files), { threads: 1 });
    expect(opened.model.weights).toBe("bf16");
    expect(memories.length).toBeGreaterThan(0);
    return memories.reduce((sum, memory) => sum + memory.buffer.byteLength, 0);
  };
  // The first may measure kernels, once in a process.
  await bytesOf();
  for (let again = 0; again < 3; again++) expect(await bytesOf()).toBeLessThan(8 * 2 ** 20);
});

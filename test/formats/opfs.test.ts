import { expect, test } from "vitest";
// @ts-expect-error: plain JavaScript, shared with the scripts
import { gguf, ggufFile } from "../../scripts/mutation/seeds.mjs";
import { parseModelConfig } from "../../src/arch/index.js";
import { DeviceError, FormatError, UsageError } from "../../src/core/index.js";
import type { ByteSource, ModelFiles } from "../../src/io/byteSource.js";
import { openCheckpoint } from "../../src/io/checkpoint.js";
import { ggufFiles } from "../../src/io/gguf/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { memoryFiles, memorySource } from "../../src/io/memory.js";
import { ModelStore, type UnfinishedModel } from "../../src/io/opfs.js";
import { serializeOffload, writeOffloaded } from "../../src/model/index.js";
import { type OpenedModel, openModel } from "../../src/pipeline/index.js";
import { Sequence } from "../../src/runtime/index.js";
import { path } from "../golden/golden.js";
import { FakeDirectory } from "../support/fakeDirectory.js";

const MiB = 2 ** 20;

/** A model whose weights take several chunks of 8 MiB. */
const weights = Uint8Array.from({ length: 20 * MiB }, (_, i) => (i * 2654435761) >>> 24);
const small = (text: string) => new TextEncoder().encode(text);
const model = new Map([
  ["config.json", small("{}")],
  ["tokenizer.json", small("{}")],
  ["notes.txt", small("no part of a model")],
  ["model.safetensors", weights],
]);
const location = "https://models.example/a";

/** The model's files, with a count of the bytes read; `onRead` may throw. */
function source(
  files: ReadonlyMap<string, Uint8Array> = model,
  onRead: (name: string, offset: number) => void = () => {},
) {
  const inner = memoryFiles(location, files);
  const counted = {
    location,
    bytesRead: 0,
    async open(name: string): Promise<ByteSource | undefined> {
      const file = await inner.open(name);
      return (
        file && {
          ...file,
          read: async (offset, length) => {
            onRead(name, offset);
            counted.bytesRead += length;
            return file.read(offset, length);
          },
        }
      );
    },
    async close() {},
  } satisfies ModelFiles & { bytesRead: number };
  return counted;
}

const open = (root: FakeDirectory, estimate: StorageEstimate = {}) =>
  ModelStore.open({ root: root as unknown as FileSystemDirectoryHandle, estimate: async () => estimate });

const stored = (root: FakeDirectory) => [...root.directories.values()][0].files;

/** A store in which a load broke off after two of the three chunks of the weights. */
async function interrupted() {
  const root = new FakeDirectory();
  const store = await open(root);
  const broken = source(model, (name, offset) => {
    if (name === "model.safetensors" && offset > 8 * MiB) throw new Error("connection lost");
  });
  await expect(store.add(broken)).rejects.toThrow("connection lost");
  return { root, store };
}

test("a model is stored with the files that belong to it, listed, read, and removed", async () => {
  const root = new FakeDirectory();
  const store = await open(root);
  const entry = { location, complete: true, byteLength: 20 * MiB + 4, storedBytes: 20 * MiB + 4 };
  const done: number[] = [];
  expect(await store.add(source(), { onProgress: (event) => done.push(event.done) })).toEqual(entry);
  expect(done.at(-1)).toBe(entry.byteLength);
  expect(await store.list()).toEqual([entry]);
  const files = await (await open(root)).files(location);
  const file = (await files.open("model.safetensors"))!;
  expect(await file.read(9 * MiB, 100)).toEqual(weights.subarray(9 * MiB, 9 * MiB + 100));
  await expect(file.read(20 * MiB, 1)).rejects.toThrow(FormatError);
  expect(await files.open("notes.txt")).toBeUndefined();
  await store.remove(location);
  expect(await store.list()).toEqual([]);
  await expect(store.files(location)).rejects.toThrow(UsageError);
});

test("after a break only what is missing is fetched, and the last stored chunk to compare", async () => {
  const { store } = await interrupted();
  expect(await store.list()).toMatchObject([{ complete: false, storedBytes: 16 * MiB + 4 }]);
  await expect(store.files(location)).rejects.toThrow("not all of it");
  const again = source();
  await store.add(again);
  expect(again.bytesRead).toBe(4 + 8 * MiB + 4 * MiB);
  const unread = source();
  await store.add(unread);
  expect(unread.bytesRead).toBe(0);
});

test("a model that changed in between is fetched anew", async () => {
  const { store } = await interrupted();
  const changed = weights.slice();
  changed[9 * MiB] ^= 1;
  await store.add(source(new Map([...model, ["model.safetensors", changed]])));
  const file = (await (await store.files(location)).open("model.safetensors"))!;
  expect(await file.read(9 * MiB, 1)).toEqual(changed.subarray(9 * MiB, 9 * MiB + 1));
  expect(await file.read(19 * MiB, 1)).toEqual(changed.subarray(19 * MiB, 19 * MiB + 1));
});

test("a stored chunk that was damaged is fetched again", async () => {
  const { root, store } = await interrupted();
  stored(root).get("model.safetensors")!.bytes[77] ^= 1;
  await store.add(source());
  expect(Buffer.compare(stored(root).get("model.safetensors")!.bytes, weights)).toBe(0);
});

test("a manifest that makes no sense counts as no model", async () => {
  for (const text of ["{", "[]", '{"location":1}', '{"location":"a","complete":true,"files":[{"name":"../x"}]}']) {
    const { root, store } = await interrupted();
    stored(root).get("store.json")!.bytes = small(text) as Uint8Array<ArrayBuffer>;
    expect(await store.list()).toEqual([]);
    await store.add(source());
    expect(Buffer.compare(stored(root).get("model.safetensors")!.bytes, weights)).toBe(0);
  }
});

test("a write that the disk did not keep is found before the model counts as complete", async () => {
  const root = new FakeDirectory();
  const store = await open(root);
  // The second chunk is read once the first is written.
  const damaging = source(model, (name, offset) => {
    if (name === "model.safetensors" && offset === 8 * MiB) stored(root).get(name)!.bytes[0] ^= 1;
  });
  await expect(store.add(damaging)).rejects.toThrow("the stored copy is not what was loaded");
  expect(await store.list()).toMatchObject([{ complete: false }]);
});

test("too little room is said before anything is fetched, with what helps", async () => {
  const store = await open(new FakeDirectory(), { quota: 30e6, usage: 25e6 });
  const adding = store.add(source());
  await expect(adding).rejects.toThrow(DeviceError);
  await expect(adding).rejects.toThrow(
    `${location} needs 21 MB more, and the browser gives this page 5 MB; remove a stored`,
  );
});

test("room that runs out on the way ends in the same error, and what is stored stays", async () => {
  const room = { bytes: 18 * MiB };
  const root = new FakeDirectory(room);
  const store = await open(root);
  await expect(store.add(source())).rejects.toThrow("the browser gives this page no more room");
  room.bytes = Number.POSITIVE_INFINITY;
  const again = source();
  await store.add(again);
  expect(again.bytesRead).toBe(4 + 8 * MiB + 4 * MiB);
});

test("an abort stops between chunks", async () => {
  const controller = new AbortController();
  const store = await open(new FakeDirectory());
  const stopping = source(model, (_, offset) => offset > 0 && controller.abort());
  await expect(store.add(stopping, { signal: controller.signal })).rejects.toThrow("aborted");
  expect(await store.list()).toMatchObject([{ complete: false, storedBytes: 16 * MiB + 4 }]);
});

test("a model that is partly stored is not lost to one that is to be made of the same name, nor the other way round", async () => {
  const { root, store } = await interrupted();
  const [left] = await store.list();
  await expect(store.make(location, async () => {})).rejects.toThrow(
    "part of https://models.example/a is in the store",
  );
  expect(await store.list()).toEqual([left]);
  const again = source();
  await store.add(again);
  expect(again.bytesRead).toBeLessThan(15 * MiB);

  const other = await open(root);
  await other.make("b", async (made) => {
    await write(made, "config.json", small("{}"));
    await expect(other.add({ ...source(), location: "b" })).rejects.toThrow("another page");
  });
  expect((await other.files("b")).sizes.size).toBe(1);
});

test("what is no model is refused, and a missing shard is named", async () => {
  const store = await open(new FakeDirectory());
  await expect(store.add(source(new Map()))).rejects.toThrow("there is no config.json");
  const config: [string, Uint8Array] = ["config.json", small("{}")];
  await expect(store.add(source(new Map([config])))).rejects.toThrow("there is no model.safetensors");
  const index = small(JSON.stringify({ weight_map: { a: "one.safetensors" } }));
  const sharded = new Map([config, ["model.safetensors.index.json", index] as [string, Uint8Array]]);
  await expect(store.add(source(sharded))).rejects.toThrow("there is no one.safetensors");
  sharded.set("one.safetensors", small("weights"));
  expect(await store.add(source(sharded))).toMatchObject({ complete: true });
});

test("a GGUF model is stored with all its parts, and a missing part is named", async () => {
  const store = await open(new FakeDirectory());
  const parts = [0, 1].map((part): Uint8Array => {
    const split = { "split.no": [2, part], "split.count": [2, 2], "split.tensors.count": [5, gguf.tensors.length] };
    const tensors = gguf.tensors.filter((_: unknown, i: number) => i % 2 === part);
    return ggufFile({ ...gguf, metadata: { ...(part === 0 ? gguf.metadata : {}), ...split }, tensors });
  });
  const seen = await ggufFiles("split", async (part) => memorySource(`part ${part}`, parts[part]));
  expect(await store.add(seen)).toMatchObject({ location: "split", complete: true });
  const checkpoint = await openCheckpoint(await store.files("split"));
  expect(checkpoint.tensors.size).toBe(gguf.tensors.length);
  const names = [...checkpoint.tensors.keys()];
  expect((await checkpoint.read(names[1])).length).toBeGreaterThan(0);
  await checkpoint.close();

  const lacking = { ...seen, open: async (name: string) => (name.includes("-00002-") ? undefined : seen.open(name)) };
  await expect((await open(new FakeDirectory())).add(lacking)).rejects.toThrow("part 2 is not beside it");
});

/** Writes a file of a model that is being made. */
async function write({ sinks }: UnfinishedModel, name: string, bytes: Uint8Array): Promise<void> {
  const sink = await sinks.create(name);
  await sink.write(bytes.subarray(0, 3));
  await sink.write(bytes.subarray(3));
  await sink.commit();
}

test("a model is made in the store, whole", async () => {
  const store = await open(new FakeDirectory());
  const given = await store.make("tiny-50", async (made) => {
    await write(made, "model.safetensors", weights);
    await write(made, "job.json", small("{}"));
    expect(await made.files.open("config.json")).toBeUndefined();
    expect(await store.list()).toEqual([{ location: "tiny-50", complete: false, byteLength: 0, storedBytes: 0 }]);
    await expect(store.files("tiny-50")).rejects.toThrow("not all of it");
    await made.remove("job.json");
    expect(made.names()).toEqual(["model.safetensors"]);
    expect(await made.files.open("job.json")).toBeUndefined();
    const half = await made.sinks.create("config.json");
    await half.write(small("{"));
    expect(await made.files.open("config.json")).toBeUndefined();
    await half.abort();
    await write(made, "config.json", small("{  }"));
    return 7;
  });
  expect(given).toBe(7);
  const byteLength = weights.length + 4;
  expect(await store.list()).toEqual([{ location: "tiny-50", complete: true, byteLength, storedBytes: byteLength }]);
  const files = await store.files("tiny-50");
  expect(Object.fromEntries(files.sizes)).toEqual({ "model.safetensors": weights.length, "config.json": 4 });
  const file = (await files.open("model.safetensors"))!;
  expect(Buffer.compare(await file.read(0, weights.length), weights)).toBe(0);
  await expect(store.make("tiny-50", async () => {})).rejects.toThrow("choose another name");
});

test("of a model whose making failed or was aborted nothing is left, and what a closed page left is cleared away", async () => {
  const root = new FakeDirectory();
  const store = await open(root);
  const failing = store.make("a", async (made) => {
    await write(made, "model.safetensors", weights);
    throw new Error("the solver failed");
  });
  await expect(failing).rejects.toThrow("the solver failed");
  const stopped = store.make("a", (made) => write(made, "model.safetensors", weights), { signal: AbortSignal.abort() });
  await expect(stopped).rejects.toThrow("aborted");
  expect(root.directories.size).toBe(0);

  const closed = await store.make("a", (made) => write(made, "model.safetensors", weights)).then(() => stored(root));
  closed.set("store.json", {
    bytes: Uint8Array.from(small('{"location":"a","files":[],"complete":false}')),
    open: false,
  });
  closed.set("left", { bytes: Uint8Array.from(weights), open: false });
  await store.make("a", async (made) => {
    expect(stored(root).has("left")).toBe(false);
    await expect(store.make("a", async () => {})).rejects.toThrow(DeviceError);
    await write(made, "config.json", small("{}"));
  });
  expect((await store.list())[0].complete).toBe(true);
});

test("a browser that runs out of room while a model is made says so, and nothing is left", async () => {
  const root = new FakeDirectory({ bytes: 9 * MiB });
  const store = await open(root);
  const full = store.make("a", (made) => write(made, "model.safetensors", weights));
  await expect(full).rejects.toThrow("no more room for a; remove a stored model");
  expect(root.directories.size).toBe(0);
});

/** A model whose MLPs lie in bundles, as `rarefy offload` leaves it. */
async function offloadedModel(): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  const directory = directoryFiles(path("arch/llama"));
  for (const name of ["config.json", "generation_config.json", "model.safetensors"]) {
    const file = (await directory.open(name))!;
    files.set(name, await file.read(0, file.byteLength));
    await file.close();
  }
  const checkpoint = await openCheckpoint(memoryFiles("whole", files));
  const { spec } = parseModelConfig(checkpoint.config, "config.json");
  const shape = { weights: "q8", layout: "inputs", bundled: true } as const;
  const parts: Uint8Array[] = [];
  const sink = { write: async (bytes: Uint8Array) => void parts.push(bytes.slice()) };
  const { byteLength } = await writeOffloaded(checkpoint, spec, shape, sink, () => undefined);
  await checkpoint.close();
  files.set("offload.bin", new Uint8Array(Buffer.concat(parts)));
  files.set("offload.json", serializeOffload({ offload: 1, ...shape, byteLength, counted: false }));
  return files;
}

test("a model larger than memory runs from the store, its bundles read in place", async () => {
  const files = await offloadedModel();
  const root = new FakeDirectory();
  const store = await open(root);
  await store.add(memoryFiles(location, files));
  const logitsOf = async (opened: OpenedModel) => {
    using sequence = new Sequence(opened.model, 8);
    const rows: number[][] = [];
    for (const token of [3, 17, 5]) {
      const logits = await sequence.run(Uint32Array.of(token));
      rows.push([...(await opened.model.backend.read(logits))]);
      opened.model.backend.release(logits);
    }
    return rows;
  };
  let wanted: number[][];
  {
    using whole = await openModel(memoryFiles("whole", files), { weights: "q8", structure: "dense", threads: 1 });
    wanted = await logitsOf(whole);
  }
  const bundles = stored(root).get("offload.bin")!;
  {
    const within = async (residentBytes: number) => {
      const source = await store.files(location, { inPlace: true });
      return openModel(source, { weights: "q8", threads: 1, offload: { residentBytes } });
    };
    const refused: string = await within(1).then(String, (error: Error) => error.message);
    using opened = await within(Number(/give at least (\d+)/.exec(refused)?.[1]));
    expect(bundles.open).toBe(true);
    expect(await logitsOf(opened)).toEqual(wanted);
    expect(opened.model.offload!.takeCounters().bytesRead).toBeGreaterThan(0);
  }
  await expect.poll(() => bundles.open).toBe(false);
});

test("files are read in place into any memory; where none may be opened so they are read as blobs", async () => {
  const root = new FakeDirectory();
  const store = await open(root);
  await store.add(source());
  const open2 = async () => (await (await store.files(location, { inPlace: true })).open("model.safetensors"))!;
  const file = await open2();
  const shared = new Uint8Array(new SharedArrayBuffer(16));
  expect(await file.read(MiB, 16, shared)).toBe(shared);
  expect([...shared]).toEqual([...weights.subarray(MiB, MiB + 16)]);
  await expect(file.read(weights.length - 8, 16)).rejects.toThrow(FormatError);
  const second = await open2();
  expect(await second.read(5, 3)).toEqual(weights.slice(5, 8));
  stored(root).get("model.safetensors")!.bytes = weights.slice(0, 10);
  await expect(file.read(8, 4)).rejects.toThrow("ended after 10 bytes");
  await file.close();
});

import { makeZip } from "client-zip";
import { parseModelConfig } from "rarefy/arch";
import {
  type ByteSink,
  type GgufTypeId,
  ModelStore,
  openCheckpoint,
  type StoredModelFiles,
  writeGguf,
} from "rarefy/io";
import type { ExportRequest } from "../protocol.js";
import type { CallContext } from "../rpc.js";
import { pieces } from "./copy.js";
import { exportFolder, removeSaved } from "./exportFolder.js";
import { job } from "./job.js";

/**
 * A model of the store as a file, which is built in the private file system, so that it need not fit into memory; or its files in a
 * folder of the user's.
 */
export async function exported(
  { location, name, form }: ExportRequest,
  context: CallContext,
): Promise<File | undefined> {
  const files = await (await ModelStore.open()).files(location);
  if ("folder" in form) {
    await intoFolder(files, form.folder, context);
    return undefined;
  }
  if ("zip" in form) return builtFile(`${name}.zip`, (sink) => zipped(files, name, sink, context));
  return builtFile(`${name}-${form.gguf}.gguf`, (sink) => asGguf(files, sink, form.gguf, name, context));
}

async function zipped(files: StoredModelFiles, name: string, sink: ByteSink, context: CallContext): Promise<void> {
  const advance = progress("write archive", files, context);
  async function* entries() {
    for (const [file, size] of files.sizes) {
      const source = (await files.open(file))!;
      yield { name: `${name}/${file}`, input: counted(pieces(source, context), advance), size };
    }
  }
  for await (const piece of readable(makeZip(entries()))) await sink.write(piece);
}

async function asGguf(
  files: StoredModelFiles,
  sink: ByteSink,
  type: GgufTypeId,
  name: string,
  context: CallContext,
): Promise<void> {
  const checkpoint = await openCheckpoint(files);
  try {
    const generation = await checkpoint.readJson("generation_config.json");
    const file = `${files.location}/config.json`;
    const config = parseModelConfig(checkpoint.config, file, generation, checkpoint.artifact?.blocks);
    await writeGguf(sink, checkpoint, config, { type, name, ...job(context) });
  } finally {
    await checkpoint.close();
  }
}

/** Whole files only: one that is not finished gets its name, or stays what it was, when it is closed. */
async function intoFolder(files: StoredModelFiles, folder: FileSystemDirectoryHandle, context: CallContext) {
  const advance = progress("write folder", files, context);
  for (const file of files.sizes.keys()) {
    const writable = await (await folder.getFileHandle(file, { create: true })).createWritable();
    try {
      for await (const piece of counted(pieces((await files.open(file))!, context), advance))
        await writable.write(piece as Uint8Array<ArrayBuffer>);
      await writable.close();
    } catch (error) {
      await writable.abort();
      throw error;
    }
  }
}

/** Makes one file of the private file system: one of its own, since the browser may still be saving another of the same name. */
async function builtFile(name: string, fill: (sink: ByteSink) => Promise<void>): Promise<File> {
  await removeSaved();
  const folder = await exportFolder();
  const own = crypto.randomUUID();
  const handle = await folder.getFileHandle(own, { create: true });
  const access = await (handle as SyncFileHandle).createSyncAccessHandle();
  let at = 0;
  try {
    await fill({
      async write(bytes) {
        const written = access.write(bytes, { at });
        if (written < bytes.byteLength)
          throw new Error("the browser gives this page no more room; remove a stored model");
        at += written;
      },
      async commit() {},
      async abort() {},
    });
    access.flush();
  } catch (error) {
    access.close();
    await folder.removeEntry(own);
    throw error;
  }
  access.close();
  return new File([await handle.getFile()], name);
}

/** The part of the File System API that TypeScript's DOM library leaves out. */
type SyncFileHandle = FileSystemFileHandle & {
  createSyncAccessHandle(): Promise<{
    write(bytes: Uint8Array, options: { at: number }): number;
    flush(): void;
    close(): void;
  }>;
};

function progress(stage: string, { sizes }: StoredModelFiles, { emit }: CallContext): (bytes: number) => void {
  const beganMs = performance.now();
  const total = [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0);
  let done = 0;
  return (bytes) => {
    done += bytes;
    const elapsedMs = performance.now() - beganMs;
    const etaMs = (elapsedMs * (total - done)) / done;
    emit({ type: "progress", stage, done, total, unit: "bytes", elapsedMs, etaMs });
  };
}

async function* counted(source: AsyncIterable<Uint8Array>, onBytes: (bytes: number) => void) {
  for await (const piece of source) {
    yield piece;
    onBytes(piece.byteLength);
  }
}

/** Not every browser can iterate over a stream. */
async function* readable(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    yield value;
  }
}

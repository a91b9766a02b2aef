import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, rename, rm, stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { FormatError, NetworkError, type Stage, UsageError } from "../core/index.js";
import { syncDirectory } from "./atomic.node.js";
import { parseContentRange } from "./contentRange.js";
import type { HubClient, RemoteFile } from "./hubClient.node.js";
import { makeDirectory } from "./makeDirectory.node.js";
import { bodyOf, withRetries } from "./retry.js";

/**
 * Downloads a file to `path`. What arrives is kept in `<path>.incomplete`, where a later call goes on after a broken
 * connection or an abort; the file gets its name when size and hash are right.
 * @throws FormatError when the content is not what the Hub announced; the partial file is then removed
 */
export async function downloadBlob(client: HubClient, file: RemoteFile, path: string, stage: Stage): Promise<void> {
  if (await hasSize(path, file.byteLength)) {
    stage.advance(file.byteLength, file.name);
    return;
  }
  await makeDirectory(dirname(path));
  const partial = `${path}.incomplete`;
  await checkSpace(dirname(path), file);
  const handle = await open(partial, "a+");
  try {
    const state = await resume(handle, partial, file, stage);
    await withRetries(async (progressed) => {
      if (state.done < file.byteLength) await fetchRest(client, file, handle, state, stage, progressed);
    }, client.options);
    const found = state.hash?.digest("hex") ?? file.etag;
    if (found !== file.etag) {
      await rm(partial, { force: true });
      throw new FormatError({
        file: file.url,
        problem: `the content has hash ${found}`,
        expected: file.etag,
        hint: "Download it again; if it happens again the server or a proxy changes the file",
      });
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(partial, path);
  await syncDirectory(dirname(path));
}

/** @throws UsageError when a file does not fit on the disk, before any of it is fetched */
async function checkSpace(directory: string, { url, byteLength }: RemoteFile): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  if (byteLength <= bavail * bsize) return;
  throw new UsageError(
    `${url} has ${byteLength} bytes, and ${directory} has room for ${bavail * bsize}; set HF_HOME to a larger disk`,
  );
}

interface Progress {
  done: number;
  /** The most that was there at any time: only what goes beyond it is progress. */
  farthest: number;
  /** Of the bytes so far; undefined where the etag is no hash that is known. */
  hash: Hash | undefined;
}

/** The Hub names large files by SHA-256 and others by the hash git gives them. */
function hashFor(file: RemoteFile): Hash | undefined {
  if (/^[0-9a-f]{64}$/.test(file.etag)) return createHash("sha256");
  if (/^[0-9a-f]{40}$/.test(file.etag)) return createHash("sha1").update(`blob ${file.byteLength}\0`);
  return undefined;
}

async function resume(handle: FileHandle, partial: string, file: RemoteFile, stage: Stage): Promise<Progress> {
  const { size } = await handle.stat();
  const state: Progress = { done: 0, farthest: 0, hash: hashFor(file) };
  if (size > file.byteLength) {
    await handle.truncate(0);
    return state;
  }
  if (state.hash !== undefined && size > 0) {
    for await (const piece of createReadStream(partial, { end: size - 1 })) state.hash.update(piece as Buffer);
  }
  state.done = size;
  state.farthest = size;
  if (size > 0) stage.advance(size, file.name);
  return state;
}

async function fetchRest(
  client: HubClient,
  file: RemoteFile,
  handle: FileHandle,
  state: Progress,
  stage: Stage,
  progressed: () => void,
): Promise<void> {
  const response = await client.get(file, state.done);
  const range = parseContentRange(response.headers.get("content-range"));
  const continues = response.status === 206 && range?.first === state.done && range.total === file.byteLength;
  if (state.done > 0 && !continues) {
    // The server begins again, so do we.
    await handle.truncate(0);
    stage.advance(-state.done, file.name);
    state.done = 0;
    state.hash = hashFor(file);
  }
  if (response.status !== 200 && !continues) {
    await response.body?.cancel();
    throw new NetworkError(`${file.url}: an unusable answer to a Range request (status ${response.status})`);
  }
  for await (const piece of bodyOf(response, file.url, client.options.signal)) {
    if (state.done + piece.byteLength > file.byteLength) throw await wrongSize(file, handle, "more than");
    // The file is open for appending.
    await handle.appendFile(piece);
    state.hash?.update(piece);
    state.done += piece.byteLength;
    stage.advance(piece.byteLength, file.name);
    if (state.done > state.farthest) {
      state.farthest = state.done;
      progressed();
    }
  }
  if (state.done < file.byteLength) {
    throw new NetworkError(`${file.url}: the connection ended after ${state.done} of ${file.byteLength} bytes`);
  }
}

async function wrongSize(file: RemoteFile, handle: FileHandle, relation: string): Promise<FormatError> {
  await handle.truncate(0);
  return new FormatError({ file: file.url, problem: `the server sends ${relation} ${file.byteLength} bytes` });
}

async function hasSize(path: string, byteLength: number): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile() && found.size === byteLength,
    () => false,
  );
}

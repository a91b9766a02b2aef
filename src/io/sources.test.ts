import { mkdir, mkdtemp, open, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { FormatError, UsageError } from "../core/index.js";
import type { ByteSource } from "./byteSource.js";
import { directoryFiles, openFile } from "./file.node.js";
import { memoryFiles, memorySource } from "./memory.js";

const directory = await mkdtemp(join(tmpdir(), "rarefy-"));
afterAll(() => rm(directory, { recursive: true }));

const bytes = Uint8Array.from({ length: 300 }, (_, i) => i % 256);
await writeFile(join(directory, "a.bin"), bytes);

const sources: [string, () => Promise<ByteSource>][] = [
  ["memory", async () => memorySource("a.bin", bytes)],
  ["file", async () => (await openFile(join(directory, "a.bin")))!],
];

describe.each(sources)("%s source", (_, make) => {
  it("reads exactly what was asked for", async () => {
    const source = await make();
    expect(source.byteLength).toBe(300);
    expect(await source.read(0, 300)).toEqual(bytes);
    expect(await source.read(100, 7)).toEqual(bytes.slice(100, 107));
    expect(await source.read(300, 0)).toEqual(new Uint8Array());
    const into = new Uint8Array(10).subarray(2, 6);
    expect(await source.read(5, 4, into)).toBe(into);
    expect(into).toEqual(bytes.slice(5, 9));
    const shared = new Uint8Array(new SharedArrayBuffer(32), 4, 8);
    await source.read(50, 8, shared);
    expect(Uint8Array.from(shared)).toEqual(bytes.slice(50, 58));
    await source.close();
  });

  it("gives copies, not views", async () => {
    const source = await make();
    (await source.read(0, 4)).fill(99);
    expect(await source.read(0, 4)).toEqual(bytes.slice(0, 4));
    await source.close();
  });

  it("refuses other ranges by name, without allocating", async () => {
    const source = await make();
    for (const [offset, length] of [
      [0, 301],
      [300, 1],
      [-1, 1],
      [0, -1],
      [0.5, 1],
      [0, 2 ** 52],
      [Number.NaN, 1],
    ]) {
      await expect(source.read(offset, length)).rejects.toThrow(FormatError);
    }
    await expect(source.read(0, 301)).rejects.toThrow(/a\.bin/);
    await expect(source.read(0, 4, new Uint8Array(3))).rejects.toThrow(UsageError);
    await source.close();
  });
});

describe("files", () => {
  it("reads beyond 4 GiB", async () => {
    const path = join(directory, "large.bin");
    const offset = 5 * 2 ** 30 + 3;
    const handle = await open(path, "w");
    await handle.write(bytes, 0, bytes.length, offset);
    await handle.close();
    const source = (await openFile(path))!;
    expect(source.byteLength).toBe(offset + 300);
    expect(await source.read(offset, 300)).toEqual(bytes);
    expect(await source.read(offset - 2, 4)).toEqual(Uint8Array.of(0, 0, 0, 1));
    await source.close();
  });

  it("says when a file shrinks while it is read", async () => {
    const path = join(directory, "shrinks.bin");
    await writeFile(path, bytes);
    const source = (await openFile(path))!;
    await truncate(path, 100);
    await expect(source.read(50, 100)).rejects.toThrow(/shrinks.bin: the data ends 50 bytes early/);
    await source.close();
  });

  it("opens plain names of a directory only", async () => {
    const files = directoryFiles(directory);
    expect(files.directory).toBe(directory);
    expect((await files.open("a.bin"))!.byteLength).toBe(300);
    expect(await files.open("none")).toBeUndefined();
    await mkdir(join(directory, "folder"));
    await expect(files.open("folder")).rejects.toThrow(FormatError);
    for (const name of [
      "../a.bin",
      "folder/a.bin",
      "/etc/passwd",
      "..",
      ".",
      "",
      "a\\b",
      "C:a",
      "a\0b",
      "a".repeat(256),
    ]) {
      await expect(files.open(name)).rejects.toThrow(UsageError);
    }
  });

  it("of a map are found by name", async () => {
    const files = memoryFiles("m", new Map([["a", bytes]]));
    const source = (await files.open("a"))!;
    expect(source.name).toBe("m/a");
    expect(await files.open("b")).toBeUndefined();
    expect(await files.open("__proto__")).toBeUndefined();
  });
});

import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { UsageError } from "../core/index.js";
import { directorySinks, linkOrCopyFile, writeFileAtomic } from "./atomic.node.js";
import { createFile } from "./byteSink.js";
import { directoryFiles } from "./file.node.js";
import { buildModelDirectory, type ModelDirectoryBuilder } from "./modelDirectory.node.js";

const root = await mkdtemp(join(tmpdir(), "rarefy-"));
afterAll(() => rm(root, { recursive: true }));

let work: string;
let input: string;
beforeEach(async () => {
  work = await mkdtemp(join(root, "case-"));
  input = join(work, "input");
  await mkdir(join(input, "folder"), { recursive: true });
  await mkdir(join(work, "blobs"));
  await writeFile(join(work, "blobs", "abc"), "weights");
  await symlink(join("..", "blobs", "abc"), join(input, "model.safetensors"));
  await writeFile(join(input, "config.json"), "{}");
  await writeFile(join(input, ".hidden"), "x");
});

const utf8 = (text: string) => new TextEncoder().encode(text);
const text = (...path: string[]) => readFile(join(work, ...path), "utf8");
const names = async (...path: string[]) => (await readdir(join(work, ...path))).toSorted();
const owner = { command: "test", job: "a" };
const outputNames = [".rarefy.json", "config.json", "model.safetensors", "rarefy.json"];
const build = async (builder: ModelDirectoryBuilder) => {
  await builder.takeOver(directoryFiles(input));
  await builder.add("rarefy.json", utf8("new"));
};

describe("atomic files", () => {
  it("replaces a file whole", async () => {
    const path = join(work, "a");
    await writeFileAtomic(path, utf8("one"));
    await writeFileAtomic(path, utf8("two"));
    expect(await text("a")).toBe("two");
    expect(await names()).toEqual(["a", "blobs", "input"]);
  });

  it("leaves the old file and no other when writing fails", async () => {
    await writeFile(join(work, "a"), "old");
    const filling = createFile(directorySinks(work), "a", async (sink) => {
      await sink.write(utf8("half"));
      expect(await text("a")).toBe("old");
      throw new Error("disk on fire");
    });
    await expect(filling).rejects.toThrow("disk on fire");
    expect(await text("a")).toBe("old");
    expect(await names()).toEqual(["a", "blobs", "input"]);
  });

  it("writes a file in pieces", async () => {
    await createFile(directorySinks(work), "a", async (sink) => {
      for (let i = 0; i < 100; i++) await sink.write(utf8(`${i},`));
    });
    expect(await text("a")).toBe(Array.from({ length: 100 }, (_, i) => `${i},`).join(""));
  });

  it("links what a symbolic link points at", async () => {
    await linkOrCopyFile(join(input, "model.safetensors"), join(work, "linked"));
    const [linked, blob] = await Promise.all([stat(join(work, "linked")), stat(join(work, "blobs", "abc"))]);
    expect(linked.ino).toBe(blob.ino);
    await rm(join(work, "blobs", "abc"));
    expect(await text("linked")).toBe("weights");
  });
});

describe("model directory", () => {
  it("takes over files without copying them and adds others", async () => {
    await buildModelDirectory(join(work, "deep", "out"), [input], build);
    expect(await names("deep")).toEqual(["out"]);
    expect(await names("deep", "out")).toEqual(outputNames);
    expect(await text("deep", "out", "model.safetensors")).toBe("weights");
    await writeFile(join(work, "deep", "out", "config.json"), "edited in place");
    expect(await text("input", "config.json")).not.toBe("edited in place");
    const [linked, blob] = await Promise.all([
      stat(join(work, "deep", "out", "model.safetensors")),
      stat(join(work, "blobs", "abc")),
    ]);
    expect(linked.ino).toBe(blob.ino);
  });

  it("does not change the input when a file it took over is replaced", async () => {
    await buildModelDirectory(join(work, "out"), [input], async (builder) => {
      await builder.takeOver(directoryFiles(input), (name) => name === "config.json");
      await builder.add("config.json", utf8("changed"));
    });
    expect(await names("out")).toEqual([".rarefy.json", "config.json"]);
    expect(await text("out", "config.json")).toBe("changed");
    expect(await text("input", "config.json")).toBe("{}");
  });

  it("fills an empty directory and replaces an output of its own", async () => {
    await mkdir(join(work, "out"));
    const again = () => buildModelDirectory(join(work, "out"), [input], build, { owner });
    await again();
    await again();
    expect(await names("out")).toEqual(outputNames);
    expect(await names()).toEqual(["blobs", "input", "out"]);
  });

  it("refuses the input, a parent of it, its alias, foreign directories and files", async () => {
    await symlink(input, join(work, "alias"));
    await writeFile(join(work, "file"), "x");
    await mkdir(join(work, "foreign"));
    await writeFile(join(work, "foreign", "precious"), "x");
    const before = await names();
    for (const [output, message] of [
      [input, /is or contains the input/],
      [work, /is or contains the input/],
      [join(work, "alias"), /is or contains the input/],
      [join(work, "file"), /not a directory/],
      [join(work, "foreign"), /not empty and was not made by rarefy/],
    ] as const) {
      const building = buildModelDirectory(output, [input], async () => {
        throw new Error("must not begin");
      });
      await expect(building).rejects.toThrow(UsageError);
      await expect(building).rejects.toThrow(message);
    }
    expect(await names()).toEqual(before);
    expect(await names("foreign")).toEqual(["precious"]);
  });

  it("leaves nothing when it fails or is aborted, and keeps an earlier output", async () => {
    await buildModelDirectory(join(work, "out"), [input], build);
    const failing = buildModelDirectory(join(work, "out"), [input], async (builder) => {
      await builder.add("rarefy.json", utf8("half"));
      throw new Error("out of memory");
    });
    await expect(failing).rejects.toThrow("out of memory");
    const controller = new AbortController();
    const aborted = buildModelDirectory(
      join(work, "other"),
      [input],
      async (builder) => {
        await builder.add("a", utf8("a"));
        controller.abort();
      },
      { signal: controller.signal },
    );
    await expect(aborted).rejects.toThrow(/abort/);
    expect(await names()).toEqual(["blobs", "input", "out"]);
    expect(await text("out", "rarefy.json")).toBe("new");
  });
});

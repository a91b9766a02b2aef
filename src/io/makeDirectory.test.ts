import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { afterAll, expect, test } from "vitest";
import { UsageError } from "../core/index.js";
import { makeDirectory } from "./makeDirectory.node.js";

const root = mkdtempSync(join(tmpdir(), "rarefy-directory-"));
afterAll(() => rmSync(root, { recursive: true }));

test("makes what is missing, by relative paths too, and is content with what is there", async () => {
  const deep = join(root, "a", "b", "c");
  await Promise.all([makeDirectory(deep), makeDirectory(relative(process.cwd(), deep)), makeDirectory(deep)]);
  expect(statSync(deep).isDirectory()).toBe(true);
  await makeDirectory(deep);
});

test("says what cannot be made below a file", async () => {
  const file = join(root, "file");
  writeFileSync(file, "");
  await expect(makeDirectory(join(file, "x", "y"))).rejects.toThrow(UsageError);
  await expect(makeDirectory(join(file, "x", "y"))).rejects.toThrow(`${file} is not a directory`);
});

test.runIf(process.platform === "linux")("ends where the system denies a directory that is there", async () => {
  await expect(makeDirectory("/proc/rarefy/models")).rejects.toThrow("/proc/rarefy cannot be made (ENOENT)");
});

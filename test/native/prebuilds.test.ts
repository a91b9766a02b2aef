import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
// @ts-expect-error plain JavaScript
import { compilePrebuild, findZig, prebuilds, zigVersion } from "../../scripts/build-native.mjs";
import { describeRecord, type OperationName } from "../../src/kernels/program/records.js";

const zig = findZig();
const rebuild = `build it again: pip install ziglang==${zigVersion}, ZIG=<its zig> node scripts/build-native.mjs --prebuilds`;

const root = fileURLToPath(new URL("../..", import.meta.url));
const compiler = process.env.CC ?? "cc";
const compiles =
  process.platform === "linux" && process.arch === "x64" && spawnSync(compiler, ["--version"]).status === 0;

test.skipIf(!compiles)("a clone with a C compiler has native kernels of its own", () => {
  expect(existsSync(join(root, "build/native.node")), "npm run build:native says why not").toBe(true);
});

describe.each(Object.keys(prebuilds))("the shipped native kernels of %s", (platform) => {
  const file = join(root, `prebuilds/${platform}.node`);

  test("are small", () => {
    expect(statSync(file).size).toBeLessThan(600_000);
  });

  test.skipIf(`${process.platform}-${process.arch}` !== platform)("read records as they are written today", () => {
    const addon = createRequire(import.meta.url)(file).open();
    for (const [record, words] of Object.entries(addon?.records ?? {}))
      expect(words, rebuild).toBe(describeRecord(record as OperationName));
  });

  test.skipIf(zig === undefined)("are what the sources give, byte for byte", () => {
    const folder = mkdtempSync(join(tmpdir(), "rarefy-prebuilds-"));
    try {
      compilePrebuild(zig, platform, join(folder, "again.node"));
      expect(readFileSync(join(folder, "again.node")).equals(readFileSync(file)), rebuild).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
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

describe.each(Object.keys(prebuilds))("the shipped native kernels of %s", (platform) => {
  const file = fileURLToPath(new URL(`../../prebuilds/${platform}.node`, import.meta.url));

  test("are small", () => {
    expect(statSync(file).size).toBeLessThan(400_000);
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

import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
// @ts-expect-error plain JavaScript
import { compilePrebuild, findZig, platforms, prebuilds, zigVersion } from "../../scripts/build-native.mjs";
import { describeRecord, type OperationName } from "../../src/kernels/program/records.js";
import { productRecord } from "../../src/kernels/wasm/native.node.js";

const zig = findZig();
const rebuild = `build it again: pip install ziglang==${zigVersion}, ZIG=<its zig> node scripts/build-native.mjs --prebuilds`;

const root = fileURLToPath(new URL("../..", import.meta.url));
const compiler = process.env.CC ?? "cc";
const here = `${process.platform}-${process.arch}`;
const compiles = Object.hasOwn(platforms, here) && spawnSync(compiler, ["--version"]).status === 0;

test.skipIf(!compiles)("a clone with a C compiler has native kernels of its own", () => {
  expect(existsSync(join(root, "build/native.node")), "npm run build:native says why not").toBe(true);
});

test.skipIf(zig === undefined)("the kernels compile for platforms of which nothing is shipped", () => {
  const others = Object.keys(platforms).filter((platform) => !prebuilds.includes(platform));
  expect(others).toContain("darwin-arm64");
  const folder = mkdtempSync(join(tmpdir(), "rarefy-platforms-"));
  try {
    for (const platform of others) {
      compilePrebuild(zig, platform, join(folder, platform));
      expect(statSync(join(folder, platform)).size).toBeGreaterThan(100_000);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a product of training is the same record in C and in WebAssembly", () => {
  const read = (path: string) => readFileSync(join(root, "src/kernels", path), "utf8");
  const fields = (of: string) =>
    [...read(`wasm/assembly/training/${of}.ts`).matchAll(/^ {2}(\w+): (?:u32|f32|usize);/gm)].map(([, name]) => name);
  const struct = read("native/product.h").match(/typedef struct \{([^}]*)\} product_record;/)![1];
  const inC = [...struct.matchAll(/(?:uint32_t|float) ([\w, ]+);/g)].flatMap(([, names]) => names.split(", "));
  expect(inC.length).toBeGreaterThan(30);
  expect(inC.map((name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase()))).toEqual([
    ...fields("step"),
    ...fields("product"),
  ]);
});

describe.each<string>(prebuilds)("the shipped native kernels of %s", (platform) => {
  const file = join(root, `prebuilds/${platform}.node`);

  test("are small", () => {
    expect(statSync(file).size).toBeLessThan(720_000);
  });

  test.skipIf(here !== platform)("read records as they are written today", () => {
    const addon = createRequire(import.meta.url)(file).open();
    const { product, ...records } = addon?.records ?? { product: productRecord };
    expect(product, rebuild).toBe(productRecord);
    for (const [record, words] of Object.entries(records))
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

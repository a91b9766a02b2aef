import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { root } from "./support/rarefy.js";

const scripts = ["scripts", "bench", "bench/real", "bench/train", "bench/webgpu", "site"].flatMap((folder) =>
  readdirSync(join(root, folder))
    .filter((name) => name.endsWith(".mjs"))
    .map((name) => `${folder}/${name}`),
);
const sources = new Map(scripts.map((name) => [name, readFileSync(join(root, name), "utf8")]));

test("every script reads its command line in the one way there is, and says at its beginning what it does", () => {
  // A file that exports nothing is there to be run; api.mjs is run by build.mjs alone.
  const run = [...sources].filter(([name, source]) => !/^export /m.test(source) && name !== "site/api.mjs");
  expect(run.length).toBeGreaterThan(30);
  for (const [name, source] of run) {
    expect([name, /\b(readOptions|runMatch)\(/.test(source)]).toEqual([name, true]);
    expect([name, /^(\/\/ \S|\/\*\*\n)/.test(source)]).toEqual([name, true]);
  }
  const elsewhere = [...sources].filter(([, source]) => /process\.argv(?!\[1\])|parseArgs\(/.test(source));
  expect(elsewhere.map(([name]) => name)).toEqual(["scripts/options.mjs"]);
});

const start = (...args: string[]) => spawnSync(process.execPath, args, { cwd: root, encoding: "utf8" });

test("--help prints what a script is for and its options, and what it does not know ends it with one line", () => {
  const help = start("scripts/build-native.mjs", "--help");
  expect(help.status).toBe(0);
  expect(help.stdout).toMatch(/^Compiles the native kernels of src\/kernels\/native\.\n/);
  expect(help.stdout).toMatch(/\nOptions:\n {2}--prebuilds\n {2}--platform VALUE\n {2}--out VALUE\n$/);
  for (const [given, problem] of [
    ["--prebuild", "Unknown option '--prebuild'"],
    ["there", "Unexpected argument 'there'"],
  ]) {
    const { status, stdout, stderr } = start("scripts/build-native.mjs", given);
    expect([status, stdout, stderr]).toEqual([2, "", `build-native.mjs: ${problem}; --help says what there is\n`]);
  }
});

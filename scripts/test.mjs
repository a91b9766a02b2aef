// npm test: builds, checks and tests everything, and ends in one line: "N passed, N failed[, N skipped]".
// Each stage streams its output; a later stage runs even when an earlier one failed, unless it cannot.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { findChromium } from "../test/platform/browser.mjs";
import { readOptions } from "./options.mjs";

readOptions();
const root = fileURLToPath(new URL("..", import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), "rarefy-test-"));
const totals = { passed: 0, failed: 0, skipped: 0 };

/** Runs a command with its output going straight through. Resolves to whether it succeeded. */
function run(title, command, args) {
  console.log(`\n── ${title} ${"─".repeat(Math.max(0, 76 - title.length))}`);
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      stdio: "inherit",
      shell: process.platform === "win32",
    });
    child.on("error", (error) => {
      console.error(`${title}: ${error.message}`);
      resolve(false);
    });
    child.on("close", (code) => resolve(code === 0));
  });
}

/** A stage that passes or fails as a whole. */
async function check(title, script) {
  const ok = await run(title, "npm", ["run", "--silent", script]);
  totals[ok ? "passed" : "failed"]++;
  return ok;
}

/** A vitest run, counted test by test from its report. */
async function vitest(title) {
  const report = join(scratch, `${title.replaceAll(" ", "-")}.json`);
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const ok = await run(title, "npx", ["vitest", "run", ...reporters]);
  let counts;
  try {
    counts = JSON.parse(readFileSync(report, "utf8"));
  } catch {
    console.error(`${title}: vitest left no report`);
    totals.failed++;
    return;
  }
  totals.passed += counts.numPassedTests;
  totals.failed += counts.numFailedTests;
  totals.skipped += counts.numPendingTests + counts.numTodoTests;
  // A file that fails before its first test, or an error outside of tests, has no failed test to show for it.
  if (!ok && counts.numFailedTests === 0) totals.failed++;
}

try {
  const built = await check("build", "build");
  await Promise.all([check("typecheck", "typecheck"), check("lint", "lint")]);
  if (built) {
    // The browser tests among them, so that no core waits for the longest of those; skipped, and counted as such, without one.
    await vitest("all tests");
    const { reason } = findChromium();
    if (reason !== undefined) console.log(`The browser tests were skipped: ${reason}.`);
  } else {
    console.error("\nThe tests run the built package, so they wait for a build that succeeds.");
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

const skipped = totals.skipped > 0 ? `, ${totals.skipped} skipped` : "";
process.exitCode = totals.failed > 0 ? 1 : 0;
console.log(`\n${totals.passed} passed, ${totals.failed} failed${skipped}`);

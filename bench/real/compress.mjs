// What sparsity and quantisation cost and give on the models of models.mjs: the tables of docs/real-models.md.
//
//   node real/compress.mjs [MODEL…] [--only ID,ID] [--stages make,quality,speed] [--windows 40] [--calibration-windows 64]
//                          [--jobs 1] [--threads 2] [--speed-threads 2] [--device cpu]
//
// All of it by the rarefy command. Candidates are made into .models/real; those that are there already are not made again, and one
// that was stopped goes on. Making (its calibration on --device) and measuring quality run --jobs commands at once, each with --threads;
// then, with nothing beside it, one `rarefy bench` for each number in --speed-threads times all candidates in turns. Writes .models/real/table-MODEL.json,
// which keeps what other stages have measured of the same windows, and prints the table. Needs the built package.

import { execFile } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { readOptions } from "../../scripts/options.mjs";
import { describeMachine } from "../machine.mjs";
import { fetchModel } from "./fetch.mjs";
import { chosen, folder } from "./models.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    only: { type: "string" },
    stages: { type: "string", default: "make,quality,speed" },
    window: { type: "string", default: "512" },
    windows: { type: "string", default: "40" },
    "calibration-windows": { type: "string", default: "64" },
    jobs: { type: "string", default: "1" },
    threads: { type: "string", default: "2" },
    "speed-threads": { type: "string", default: "2" },
    device: { type: "string", default: "cpu" },
  },
});
const stages = values.stages.split(",");
const main = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

const compress = (recipe) => ["compress", "--recipe", recipe, "--calib", "tiny-6m:calib"];
const teal = (sparsity) => ["calibrate", "--sparsity", `${sparsity}`, "--text", "tiny-6m:calib"];
/** By their names in the table, how each is made; those that take longest first. */
const candidates = {
  "sparsegpt-50": { title: "SparseGPT, half of the weights", make: compress("sparsegpt-50") },
  "sparsegpt-2:4": { title: "SparseGPT, 2:4", make: compress("sparsegpt-2:4") },
  "gptq-4": { title: "int4, GPTQ", make: compress("gptq-4") },
  "teal-25": { title: "TEAL, 25 % of inputs", make: teal(0.25) },
  "teal-40": { title: "TEAL, 40 %", make: teal(0.4) },
  "teal-50": { title: "TEAL, 50 %", make: teal(0.5) },
  "wanda-50": { title: "Wanda, half of the weights", make: compress("wanda-50") },
  "wanda-2:4": { title: "Wanda, 2:4", make: compress("wanda-2:4") },
  "rtn-8": { title: "int8, rounded", make: compress("rtn-8") },
  "rtn-4": { title: "int4, rounded", make: ["quantize", "--method", "rtn", "--bits", "4"] },
};

async function rarefy(threads, args) {
  const command = [main, ...args, "--json", "--quiet", "--threads", `${threads}`];
  const { stdout } = await promisify(execFile)(process.execPath, command, { maxBuffer: 2 ** 28 });
  return stdout;
}

/** Runs `work` on every item, as many at once as there are jobs. */
async function inTurns(items, work) {
  const left = [...items];
  const next = async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: Number(values.jobs) }, next));
}

async function tableOf(id, model) {
  const file = await fetchModel(model);
  const names = Object.keys(candidates).filter((name) => values.only?.split(",").includes(name) ?? true);
  const outputOf = (name) => join(folder, `${id}-${name.replace(":", "of")}`);
  const begin = model.begin ? ["--bos"] : [];
  const table = emptyTable(id, model);
  const say = (text) => process.stderr.write(`${(process.uptime() / 60).toFixed(1)} min, ${id}: ${text}\n`);
  const note = (name, figures) => {
    table.rows[name] = { ...table.rows[name], ...figures };
    writeFileSync(join(folder, `table-${id}.json`), `${JSON.stringify(table, null, 2)}\n`);
  };

  if (stages.includes("make")) {
    await inTurns(
      names.filter((name) => !existsSync(outputOf(name))),
      async (name) => {
        const [command, ...how] = candidates[name].make;
        const calibrates = how.some((argument) => argument === "--calib" || argument === "--text");
        const windows = ["--calibration-windows", values["calibration-windows"], "--window", values.window, ...begin];
        const by = calibrates ? [...windows, "--device", values.device] : [];
        await rarefy(values.threads, [command, file, ...how, ...by, "-o", outputOf(name)]);
        say(`made ${name}`);
      },
    );
  }
  if (stages.includes("quality")) {
    const windows = ["--text", "tiny-6m:eval", "--window", values.window, "--max-windows", values.windows, ...begin];
    await inTurns(names, async (name) => {
      const measured = await rarefy(values.threads, ["eval", outputOf(name), "--against", file, ...windows]);
      const { against, ...quality } = JSON.parse(measured);
      const { perplexity, weights } = against;
      note("dense", { weights, perplexity });
      const { activationSparsity, klDivergence, top1Agreement } = quality;
      const { perplexity: own, weights: kept } = quality;
      note(name, { weights: kept, perplexity: own, activationSparsity, klDivergence, top1Agreement });
      say(`${name} has a perplexity of ${own.toFixed(2)}`);
    });
  }
  if (stages.includes("speed")) {
    for (const threads of values["speed-threads"].split(",")) {
      const measured = await rarefy(threads, ["bench", file, "--against", ...names.map(outputOf)]);
      for (const [r, row] of JSON.parse(measured).rows.entries()) {
        const name = ["dense", ...names][r];
        const { bytesPerToken, decodeTokensPerSecond, runsAs } = row;
        const speeds = { ...table.rows[name]?.decodeTokensPerSecond, [threads]: decodeTokensPerSecond };
        note(name, { bytesPerToken, runsAs, decodeTokensPerSecond: speeds });
      }
      say(`timed with ${threads} threads`);
    }
  }
  return table;
}

/** What an earlier call has measured alike, else nothing yet. */
function emptyTable(id, { file, begin }) {
  const [window, windows, calibrationWindows] = [values.window, values.windows, values["calibration-windows"]].map(
    Number,
  );
  const settings = { model: id, file, window, windows, calibrationWindows, begin };
  const path = join(folder, `table-${id}.json`);
  const before = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : {};
  const same = Object.entries(settings).every(([key, value]) => before[key] === value);
  return { ...settings, machine: describeMachine(), rows: same ? before.rows : {} };
}

/** A Markdown table. */
function format({ rows }) {
  const threads = Object.keys(rows.dense?.decodeTokensPerSecond ?? {});
  const head = ["", "weights", "zero inputs", "perplexity", "KL from dense", "same top token", "read per token"];
  const cells = ["dense", ...Object.keys(candidates)]
    .filter((name) => rows[name] !== undefined)
    .map((name) => {
      const row = rows[name];
      const speeds = threads.map((count) => {
        const [own, dense] = [row, rows.dense].map((one) => one.decodeTokensPerSecond?.[count]);
        if (own === undefined) return "";
        const range = `${own.median.toFixed(1)} (${own.min.toFixed(1)}-${own.max.toFixed(1)})`;
        return `${range}, ${(own.median / dense.median).toFixed(2)} ×`;
      });
      return [
        candidates[name]?.title ?? "dense",
        row.weights ?? "",
        row.activationSparsity > 0 ? percent(row.activationSparsity) : "",
        row.perplexity?.toFixed(2) ?? "",
        row.klDivergence?.toFixed(3) ?? "",
        row.top1Agreement === undefined ? "" : percent(row.top1Agreement),
        row.bytesPerToken === undefined ? "" : `${(row.bytesPerToken / 1e6).toFixed(1)} MB`,
        ...speeds,
      ];
    });
  const all = [...head, ...threads.map((count) => `tokens/s, ${count} threads`)];
  return [all, all.map((_, i) => (i < 2 ? "---" : "---:")), ...cells].map((row) => `| ${row.join(" | ")} |`).join("\n");
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

for (const [id, model] of chosen(positionals)) {
  const table = await tableOf(id, model);
  console.log(`${model.title}\n\n${format(table)}\n`);
}

/**
 * Holds `eval --tasks` against lm-evaluation-harness: the same task files and documents give the same prompts, figures and
 * standard errors (with a language model that is a hash of the text), and the same figures of a model that lm-eval asks over HTTP
 * through `rarefy serve`. Needs a Python with lm_eval[api]; nothing of this is part of the package or of CI.
 *
 *   npm run build && node scripts/check-lm-eval.mjs --python VENV/bin/python [--model DIR] [--no-http | --http-only] [--limit-tasks NAME,..]
 *   node scripts/check-lm-eval.mjs --python VENV/bin/python --golden     writes test/golden/lm-eval/expected.json anew
 */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { evaluateTasks, prepareTasks, readTasks } from "rarefy/tasks";
import { taskFolder } from "rarefy/tasks/node";
import { writeDataSets } from "./lmeval/data.mjs";
import { fakeChatTemplate, fakeScorer } from "./lmeval/fake.mjs";
import { readOptions } from "./options.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const { values } = readOptions({
  options: {
    python: { type: "string", default: "python3" },
    model: { type: "string", default: join(root, "models/tiny-6m") },
    "no-http": { type: "boolean", default: false },
    "http-only": { type: "boolean", default: false },
    golden: { type: "boolean", default: false },
    "limit-tasks": { type: "string" },
  },
});
const folder = mkdtempSync(join(tmpdir(), "rarefy-lm-eval-"));
const data = join(folder, "data");
writeDataSets(readFileSync(join(root, "models/text/books-eval.txt"), "utf8").slice(0, 400_000), data);

const python = (...args) => pythonIn(folder, ...args);
const pythonIn = (cwd, ...args) =>
  execFileSync(values.python, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
const own = python("-c", "import lm_eval, os; print(os.path.dirname(lm_eval.__file__))").trim();
const ownTasks = taskFolder(join(own, "tasks"));

/** Of lm-evaluation-harness' own task files. */
const files = {
  arc_easy: "arc/arc_easy.yaml",
  arc_challenge: "arc/arc_challenge.yaml",
  hellaswag: "hellaswag/hellaswag.yaml",
  piqa: "piqa/piqa.yaml",
  winogrande: "winogrande/default.yaml",
  lambada_openai: "lambada/lambada_openai.yaml",
  lambada_standard: "lambada/lambada_standard.yaml",
  boolq: "super_glue/boolq/default.yaml",
  "boolq-seq2seq": "super_glue/boolq/seq2seq.yaml",
  openbookqa: "openbookqa/openbookqa.yaml",
  rte: "glue/rte/default.yaml",
};
const names = values["limit-tasks"]?.split(",") ?? Object.keys(files);

function oracle(mode, ...args) {
  const out = join(folder, "oracle.json");
  python(join(root, "scripts/lmeval/oracle.py"), mode, data, ...names, "--out", out, ...args);
  return JSON.parse(readFileSync(out, "utf8"));
}

/** How far two figures are apart: absolutely where they are small, as shares are; else, as perplexities are, relatively. */
const distance = (a, b) => Math.abs(a - b) / Math.max(1, Math.abs(b));

/** Compares every figure and standard error. @returns the largest difference */
function compare(results, expected, tolerance) {
  let [largest, figures] = [0, 0];
  for (const { task, figures: found } of results) {
    const wanted = expected.results[task.name];
    for (const { metric, filter, value, standardError } of found) {
      const pairs = [
        [value, wanted[`${metric},${filter}`], metric],
        [standardError, wanted[`${metric}_stderr,${filter}`], `${metric}_stderr`],
      ];
      for (const [mine, theirs, name] of pairs) {
        figures++;
        if (mine === undefined) assert.equal(theirs, "N/A", `${task.name} ${name}`);
        else {
          assert.ok(distance(mine, theirs) <= tolerance, `${task.name} ${name}: ${mine}, lm-eval ${theirs}`);
          largest = Math.max(largest, distance(mine, theirs));
        }
      }
    }
  }
  return { largest, figures };
}

async function checkFake(shots, chat) {
  const tasks = await readTasks(
    ownTasks,
    names.map((name) => files[name]),
  );
  const scorer = fakeScorer();
  const prepared = await prepareTasks(
    tasks,
    { tasks: ownTasks, data: taskFolder(data) },
    { shots, ...(chat && { chatTemplate: fakeChatTemplate }) },
  );
  const results = await evaluateTasks(scorer, prepared, { resamples: 2000 });
  const args = ["--shots", String(shots), "--resamples", "2000", ...(chat ? ["--chat"] : [])];
  const expected = oracle("fake", ...args);
  const sorted = (asked) => asked.map((one) => JSON.stringify(one)).sort();
  assert.deepEqual(sorted(scorer.asked), sorted(expected.asked));
  const { largest, figures } = compare(results, expected, 1e-9);
  console.log(
    `${shots} examples${chat ? ", as a chat" : ""}: ${scorer.asked.length} requests equal, ${figures} figures within ${largest.toExponential(1)}`,
  );
}

async function checkHttp() {
  const child = spawn(
    process.execPath,
    [join(root, "dist/cli/main.js"), "serve", values.model, "--port", "0", "--weights", "f32"],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  try {
    let url;
    for await (const line of createInterface({ input: child.stdout })) {
      url = /http:\/\/[^/\s]+/.exec(line)?.[0];
      if (url !== undefined) break;
    }
    child.stdout.resume();
    const served = (await (await fetch(`${url}/v1/models`)).json()).data[0].id;
    const out = join(folder, "own.json");
    const told = execFileSync(
      process.execPath,
      [
        join(root, "dist/cli/main.js"),
        "eval",
        values.model,
        "--weights",
        "f32",
        "--tasks",
        ...names.map((name) => files[name]),
        "--task-folder",
        join(own, "tasks"),
        "--task-data",
        data,
        "--resamples",
        "100",
        "--task-output",
        out,
        "--quiet",
      ],
      { encoding: "utf8" },
    );
    console.log(told);
    const mine = JSON.parse(readFileSync(out, "utf8"));
    for (const way of [[], ["--as-text"], ["--concurrent", "4"]]) {
      const theirs = oracle(
        "http",
        "--url",
        `${url}/v1/completions`,
        "--model",
        served,
        "--tokenizer",
        values.model,
        "--shots",
        "0",
        "--resamples",
        "100",
        ...way,
      );
      let [largest, count] = [0, 0];
      for (const [task, figures] of Object.entries(theirs.results)) {
        for (const [name, value] of Object.entries(figures)) {
          if (typeof value !== "number" || name === "sample_len") continue;
          const own = mine.results[task][name];
          assert.ok(distance(own, value) <= 1e-4, `${task} ${name}: ${own}, over HTTP ${value}`);
          largest = Math.max(largest, distance(own, value));
          count++;
        }
      }
      console.log(`lm-eval over HTTP ${way.join(" ")}: ${count} figures equal within ${largest.toExponential(1)}`);
    }
  } finally {
    child.kill("SIGTERM");
  }
}

/** What lm-eval makes of the task files of the tests. */
function writeGolden() {
  const place = join(root, "test/golden/lm-eval");
  const tasks = readdirSync(place).flatMap((name) => /^(golden_\w+)\.yaml$/.exec(name)?.[1] ?? []);
  const out = join(folder, "golden.json");
  const expected = [0, 2].map((shots) => {
    const args = ["--include", place, "--shots", String(shots), "--resamples", "1000", "--out", out];
    pythonIn(place, join(root, "scripts/lmeval/oracle.py"), "fake", place, ...tasks, ...args);
    const { results, asked } = JSON.parse(readFileSync(out, "utf8"));
    return { shots, results, asked };
  });
  const version = python("-c", "import importlib.metadata as m; print(m.version('lm_eval'))").trim();
  writeFileSync(join(place, "expected.json"), `${JSON.stringify({ lmEval: version, resamples: 1000, expected })}\n`);
}

try {
  if (values.golden) {
    writeGolden();
  } else {
    const ways = values["http-only"]
      ? []
      : [
          [0, false],
          [3, false],
          [2, true],
        ];
    for (const [shots, chat] of ways) await checkFake(shots, chat);
    if (!values["no-http"]) await checkHttp();
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

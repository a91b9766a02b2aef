import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  command,
  ensureInstalled,
  type Finished,
  node,
  rarefyProcess as rarefy,
  rarefyJson,
} from "./support/rarefy.js";

const model = "models/tiny-6m";
const calibrationText = "models/text/calib.txt";
const evaluationText = "models/text/books-eval.txt";
const scratch = mkdtempSync(join(tmpdir(), "rarefy-cli-"));
const sparse = join(scratch, "sparse");
const calibrate = ["calibrate", model, "--text", calibrationText, "--window", "128", "--calibration-windows", "4"];

beforeAll(ensureInstalled);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

// Tests run beside each other; threads that wait for each other on busy cores would take long.
const oneThread = ["--threads", "1"];

/** The JSON document of a command that must succeed. Every command of this file is a process, as it is for users. */
const json = (args: readonly string[]) => rarefyJson([...args, ...(args[0] === "inspect" ? [] : oneThread)], rarefy);

describe("a sparse model directory", () => {
  let document: Record<string, unknown>;
  beforeAll(async () => {
    document = await json([...calibrate, "--sparsity", "0.5", "--weights", "q8", "-o", sparse]);
  });

  test("calibrate writes a complete directory and says what it did", () => {
    expect(document).toMatchObject({ output: sparse, weights: "q8", method: "teal", sparsity: 0.5, prefill: "dense" });
    expect(document.realisedSparsity).toBeCloseTo(0.5, 2);
    expect(document.layers).toHaveLength(6);
    const names = readdirSync(sparse);
    expect(names).toEqual(
      expect.arrayContaining(["config.json", "model.safetensors", "tokenizer.json", "rarefy.json"]),
    );
    expect(readdirSync(scratch)).toEqual(["sparse"]);
  });

  test("inspect names every rotary base and the layers with windows", async () => {
    const layers = { layer_types: ["sliding_attention", "full_attention"] };
    const config = { ...JSON.parse(readFileSync("test/golden/arch/gemma3/config.json", "utf8")), ...layers };
    const folder = join(scratch, "gemma");
    mkdirSync(folder);
    writeFileSync(join(folder, "config.json"), JSON.stringify(config));
    // Of a folder without weights the config.json alone is inspected.
    const { stdout } = await rarefy(["inspect", folder]);
    expect(stdout).toContain("sliding window of 8 in 1 of 2 layers");
    expect(stdout).toContain("rotary base 10000 in 1 of 2 layers and 1000000 in 1 of 2 layers");
    rmSync(folder, { recursive: true });
  });

  test("a model that leaves nothing out is not measured against itself", async () => {
    const { code, stderr } = await rarefy(["eval", model, "--text", evaluationText, "--against", "dense"]);
    expect(code).toBe(2);
    expect(stderr).toContain("--against MODEL");
  });

  test("the same calibration gives the same file", async () => {
    const again = join(scratch, "again");
    await json([...calibrate, "--sparsity", "0.5", "--weights", "q8", "-o", again]);
    expect(readFileSync(join(again, "rarefy.json"), "utf8")).toBe(readFileSync(join(sparse, "rarefy.json"), "utf8"));
    rmSync(again, { recursive: true });
  });

  test("inspect tells sizes and what rarefy.json holds, without thresholds of layers", async () => {
    const inspected = await json(["inspect", sparse, "--tensors"]);
    expect(inspected.parameters.total).toBe(6_524_160);
    expect(inspected.tensors).toHaveLength(56);
    expect(inspected.artifact).toMatchObject({ weights: "q8", activationSparsity: { sparsity: 0.5, layers: 6 } });
    const q8 = inspected.formats.find((row: { weights: string }) => row.weights === "q8");
    expect(q8.sparseBytesPerToken).toBeLessThan(0.7 * q8.bytesPerToken);
    expect(inspected.tokenizer).toEqual({ tokens: 8192, special: 3, chatTemplate: true });
  });

  test("eval runs it sparse with no flags, and compares it with itself dense", async () => {
    const row = await json([
      "eval",
      sparse,
      "--text",
      evaluationText,
      "--window",
      "64",
      "--max-windows",
      "2",
      "--against",
      "dense",
    ]);
    expect(row).toMatchObject({
      weights: "q8",
      window: 64,
      windows: 2,
      tokens: 126,
      against: { activationSparsity: 0 },
    });
    expect(row.textSha256).toBe(createHash("sha256").update(readFileSync(evaluationText)).digest("hex"));
    expect(row.activationSparsity).toBeGreaterThan(0.4);
    expect(row.perplexity).toBeGreaterThan(row.against.perplexity);
    expect(row.klDivergence).toBeGreaterThan(0);
    expect(row.top1Agreement).toBeLessThan(1);
  });

  test("run generates with it, and differently from the dense model", async () => {
    const prompt = ["--prompt", "It was a dark night", "--max-tokens", "24"];
    const [first, second, dense] = await Promise.all([
      json(["run", sparse, ...prompt]),
      json(["run", sparse, ...prompt]),
      json(["run", model, ...prompt, "--weights", "q8"]),
    ]);
    expect(first.tokenIds).toHaveLength(24);
    expect(first.finishReason).toBe("maxTokens");
    expect(first.tokenIds).toEqual(second.tokenIds);
    expect(first.tokenIds).not.toEqual(dense.tokenIds);
  });

  test("bench gives a row for each model", async () => {
    const few = ["--prefill-tokens", "8", "--decode-tokens", "4", "--repeats", "1"];
    const { rows } = await json(["bench", sparse, "--against", "dense", model, ...few]);
    expect(rows.map((row: { model: string; weights: string }) => [row.model, row.weights])).toEqual([
      ["sparse", "q8"],
      ["dense", "q8"],
      ["tiny-6m", "bf16"],
    ]);
    for (const row of rows) {
      expect(row.threads).toBe(1);
      for (const field of ["bytesPerToken", "bandwidthShare", "peakMemoryBytes"])
        expect(row[field], field).toBeGreaterThan(0);
    }
    for (const row of rows) {
      for (const field of ["prefillTokensPerSecond", "decodeTokensPerSecond"]) {
        const { median, min, max, samples } = row[field];
        expect(samples).toBe(1);
        expect([min, max]).toEqual([median, median]);
        expect(median).toBeGreaterThan(0);
      }
      expect(row.runsAs.map(({ structure }: { structure: string }) => structure)).toEqual(["dense"]);
    }
    expect(rows[0].bytesPerToken).toBeLessThan(0.8 * rows[1].bytesPerToken);
    expect(rows[0].activationSparsity).toBeGreaterThan(0.3);
    expect(rows[1].activationSparsity).toBe(0);
  });
});

describe("run", () => {
  const run = ["run", model, "--max-tokens", "12"];
  const prompt = ["--prompt", "The sea was"];

  test("prints the text that --json reports, and stops before a stop string", async () => {
    const [text, document, stopped] = await Promise.all([
      rarefy([...run, ...prompt, "--quiet", ...oneThread]),
      json([...run, ...prompt]),
      json([...run, ...prompt, "--stop", " the"]),
    ]);
    expect(text.stdout).toBe(`${document.text}\n`);
    expect(document.text).toContain(" the");
    expect(stopped).toMatchObject({ finishReason: "stopString", text: document.text.split(" the")[0] });
  });

  test("holds no more than a KV policy lets it, and sees what a pattern shows", async () => {
    const [whole, covered, kept, refused] = await Promise.all([
      json([...run, ...prompt]),
      json([...run, ...prompt, "--kv", "h2o:budget=64", "--attention", "window:size=64"]),
      json([...run, ...prompt, "--kv", "sinks:budget=4,sinks=1"]),
      rarefy([...run, ...prompt, "--kv", "sinks:budget=4"]),
    ]);
    expect(covered.tokenIds).toEqual(whole.tokenIds);
    expect(kept.kv).toBe("sinks:budget=4,sinks=1");
    expect(kept.tokenIds).toHaveLength(12);
    expect(kept.tokenIds).not.toEqual(whole.tokenIds);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toContain("sinks:budget=4,sinks=4 leaves no room for new tokens");
  });

  test("the same seed gives the same text, another one another", async () => {
    const sampled = (seed: string) =>
      json([...run, ...prompt, "--temperature", "1", "--top-p", "0.95", "--seed", seed]);
    const [one, same, other] = await Promise.all([sampled("1"), sampled("1"), sampled("2")]);
    expect(one.seed).toBe(1);
    expect(same.tokenIds).toEqual(one.tokenIds);
    expect(other.tokenIds).not.toEqual(one.tokenIds);
  });

  test("without a prompt it answers line after line", async () => {
    const { code, stdout, stderr } = await rarefy([...run, "--no-chat", "--quiet", ...oneThread], {
      input: "The sea was\n\nThe sky was\n",
    });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const document = await json([...run, ...prompt]);
    expect(stdout.startsWith(`${document.text}\n\n`)).toBe(true);
    expect(stdout.slice(document.text.length).trim()).not.toBe("");
  });

  test("with --json the lines of stdin become one document", async () => {
    const { code, stdout } = await rarefy([...run, "--no-chat", "--json", "--quiet", ...oneThread], {
      input: "The sea was\nThe sky was\n",
    });
    expect(code).toBe(0);
    const { turns } = JSON.parse(stdout);
    expect(turns.map(({ prompt }: { prompt: string }) => prompt)).toEqual(["The sea was", "The sky was"]);
    expect(turns[0]).toMatchObject({ text: (await json([...run, ...prompt])).text, finishReason: "maxTokens" });
  });

  test("a line too long is told, and the talk goes on", async () => {
    const { code, stdout, stderr } = await rarefy([...run, "--no-chat", "--quiet", ...oneThread], {
      input: `${"1 2 3 4 5 6 7 8 9 ".repeat(200)}\nThe sea was\n`,
    });
    expect(code).toBe(0);
    expect(stderr).toMatch(/^error: the line makes a prompt of \d+ tokens.*Shorten it\n$/);
    expect(stdout).toBe(`${(await json([...run, ...prompt])).text}\n\n`);
  });

  test("a prompt comes from stdin or a file as well", async () => {
    const file = join(scratch, "prompt.txt");
    writeFileSync(file, "The sea was\n");
    const [named, piped, direct] = await Promise.all([
      json([...run, "--prompt-file", file]),
      rarefy([...run, "--prompt", "-", "--json", "--quiet", ...oneThread], { input: "The sea was\n" }),
      json([...run, ...prompt]),
    ]);
    expect(named.prompt).toBe("The sea was");
    expect(named.tokenIds).toEqual(direct.tokenIds);
    expect(JSON.parse(piped.stdout).tokenIds).toEqual(direct.tokenIds);
  });

  test("an empty prompt is told before the weights are read", async () => {
    const directory = mkdtempSync(join(scratch, "no-weights-"));
    for (const name of ["config.json", "tokenizer.json", "tokenizer_config.json"])
      cpSync(join(model, name), join(directory, name));
    const { code, stderr } = await rarefy(["run", directory, "--prompt", "", "--quiet"]);
    expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringMatching(/the prompt is empty/) });
  });
});

// The longest one says no more of another Node.js than the others.
test.skipIf(process.env.RAREFY_TEST_NODE !== undefined)(
  "demo measures dense against sparse, and lets both write",
  async () => {
    const document = await json(["demo", "--calibration-windows", "2", "--max-windows", "1", "--repeats", "1"]);
    const sparsities = document.rows.map((row: { activationSparsity: number }) => row.activationSparsity);
    for (const [i, expected] of [0, 0.25, 0.4, 0.5].entries()) expect(sparsities[i]).toBeCloseTo(expected, 1);
    const perplexities = document.rows.map((row: { perplexity: number }) => row.perplexity);
    expect(perplexities).toEqual(perplexities.toSorted((a: number, b: number) => a - b));
    const bytes = document.rows.map((row: { bytesPerToken: number }) => row.bytesPerToken);
    expect(bytes).toEqual(bytes.toSorted((a: number, b: number) => b - a));
    expect(document.samples.map(({ name }: { name: string }) => name)).toEqual(["dense", "50 % sparse"]);
    expect(document.samples[0].text).not.toBe(document.samples[1].text);
  },
);

test("progress is lines of text on stderr where that is no terminal, and JSON lines with --json", async () => {
  const run = ["run", model, "--prompt", "a", "--max-tokens", "1", "--threads", "2"];
  const [text, json] = [await rarefy(run), await rarefy([...run, "--json"])];
  expect([text.code, json.code]).toEqual([0, 0]);
  expect(text.stderr).toMatch(/^load weights {2}100 % {2}\d+ MB {2}in 0:\d\d$/m);
  expect(text.stderr).not.toContain("{");
  const stages = json.stderr
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line).stage);
  expect(stages).toContain("load weights");
});

describe("errors are one clear line", () => {
  const text = ["--text", evaluationText];
  function broken(change: (config: Record<string, unknown>) => void): string {
    const directory = mkdtempSync(join(scratch, "broken-"));
    cpSync(model, directory, { recursive: true });
    const config = JSON.parse(readFileSync("test/golden/arch/gemma3/config.json", "utf8"));
    change(config);
    writeFileSync(join(directory, "config.json"), JSON.stringify(config));
    return directory;
  }
  const fails = async (args: readonly string[]): Promise<Finished> => {
    const finished = await rarefy([...args, "--quiet"]);
    expect(finished.stdout).toBe("");
    expect(finished.stderr).not.toMatch(/^ +at /m);
    return finished;
  };

  test.each<[string, () => string[], number, RegExp]>([
    ["no such directory", () => ["inspect", "./nowhere"], 2, /error: there is no directory \.\/nowhere/],
    [
      "a file for a directory",
      () => ["inspect", "README.md"],
      2,
      /is a file and no GGUF file; give a GGUF file, or the directory/,
    ],
    ["no text file", () => ["eval", model, "--text", "nowhere.txt"], 1, /nowhere\.txt: there is no such file/],
    ["a text too short", () => ["eval", model, "--text", "LICENSE", "--window", "100000"], 2, /window/],
    [
      "broken config",
      () => [
        "eval",
        broken((c) => {
          c.num_hidden_layers = -1;
        }),
        ...text,
      ],
      1,
      /config\.json: num_hidden_layers/,
    ],
    [
      "config of another model",
      () => [
        "eval",
        broken((c) => {
          c.hidden_size = 512;
        }),
        ...text,
      ],
      1,
      /embed_tokens/,
    ],
    [
      "unknown architecture",
      () => [
        "eval",
        broken((c) => {
          c.model_type = "gpt9";
        }),
        ...text,
      ],
      1,
      /gpt9/,
    ],
    ["a missing option", () => ["eval", model], 2, /give --text, --tasks or both/],
    [
      "sparsity of 1",
      () => [...calibrate, "--sparsity", "1", "-o", join(scratch, "never")],
      2,
      /at least 0 and below 1/,
    ],
    ["a made-up format", () => ["bench", model, "--weights", "q3"], 2, /Allowed choices are f32, bf16, q8, q4/],
    ["an output that holds the model", () => [...calibrate, "-o", "models"], 2, /contains the input/],
    ["an output of someone else", () => [...calibrate, "-o", "docs"], 2, /not made by rarefy/],
  ])("%s", async (_name, args, code, message) => {
    const finished = await fails(args());
    expect(finished.stderr).toMatch(message);
    expect(finished.code).toBe(code);
  });
});

test.skipIf(process.platform === "win32")("an interrupted calibration leaves nothing behind", async () => {
  const output = join(scratch, "interrupted");
  const long = ["calibrate", model, "--text", calibrationText, "--allocation", "greedy", "-o", output, ...oneThread];
  const finished = await rarefy(long, { interrupt: { signal: "SIGINT", when: /"calibrate"/ } });
  expect(finished.code).toBe(130);
  expect(finished.stderr).toMatch(/Stopped\.\n$/);
  expect(existsSync(output)).toBe(false);
  expect(readdirSync(scratch).filter((name) => name.includes("interrupted"))).toEqual([]);
});

test("a reader that goes away is no error", async () => {
  const { execFile } = await import("node:child_process");
  const line = `"${node}" "${command}" inspect ${model} --quiet | true`;
  const stderr = await new Promise((resolve, reject) =>
    execFile("bash", ["-o", "pipefail", "-c", line], (error, _out, text) => (error ? reject(error) : resolve(text))),
  );
  expect(stderr).toBe("");
});

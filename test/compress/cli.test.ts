import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ensureInstalled, type Finished, rarefy, rarefyJson, root } from "../support/rarefy.js";

const model = "models/tiny-6m";
const scratch = mkdtempSync(join(tmpdir(), "rarefy-compress-"));
const small = ["--window", "64", "--calibration-windows", "4", "--threads", "1"];
const calib = ["--calib", "models/text/calib.txt", ...small];
const text = ["--text", "models/text/books-eval.txt", "--window", "64", "--max-windows", "2"];
const out = (name: string) => join(scratch, name);

beforeAll(ensureInstalled);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

function expectSameFiles(actual: string, expected: string): void {
  expect(readdirSync(actual).sort()).toEqual(readdirSync(expected).sort());
  for (const name of readdirSync(expected)) {
    expect(readFileSync(join(actual, name)).equals(readFileSync(join(expected, name))), name).toBe(true);
  }
}

describe("prune", () => {
  test("writes a complete model and measures it; eval reads the same figure", async () => {
    const row = await rarefyJson(["prune", model, "--sparsity", "0.5", ...calib, ...text, "-o", out("half")]);
    expect(row).toMatchObject({
      model: "half",
      weights: "f32",
      window: 64,
      windows: 2,
      output: out("half"),
      resumedBlocks: 0,
      before: { model: "tiny-6m", activationSparsity: 0 },
    });
    expect(row.densityStored).toBeCloseTo(0.5, 3);
    expect(row.perplexity).toBeGreaterThan(row.before.perplexity);
    expect(row.bytesOnDisk).toBeLessThan(0.75 * row.before.bytesOnDisk);
    for (const field of ["elapsedMs", "peakMemoryBytes", "klDivergence"]) expect(row[field], field).toBeGreaterThan(0);
    expect(row.layers).toHaveLength(6);
    expect(existsSync(`${out("half")}.partial`)).toBe(false);

    const again = await rarefyJson([
      "eval",
      out("half"),
      "--weights",
      "f32",
      "--window",
      "64",
      "--threads",
      "1",
      ...text,
    ]);
    expect(again.perplexity).toBe(row.perplexity);
    const stored = JSON.parse(readFileSync(join(out("half"), "rarefy.json"), "utf8"));
    expect(stored.results.map((result: { perplexity: number }) => result.perplexity)).toEqual([
      row.before.perplexity,
      row.perplexity,
    ]);

    const bytes = readFileSync(join(out("half"), "rarefy.json"));
    const repeated = await rarefyJson(["prune", model, "--sparsity", "0.5", ...calib, ...text, "-o", out("half")]);
    expect(repeated).toMatchObject({ resumedBlocks: 6, densityStored: row.densityStored });
    expect(readFileSync(join(out("half"), "rarefy.json")).equals(bytes)).toBe(true);
  });

  test("without calibration, dense, for other tools", async () => {
    const args = ["prune", model, "--method", "magnitude", "--pattern", "2:4", "--store", "dense", "-o", out("dense")];
    const { bytesOnDisk, densityStored } = await rarefyJson([...args, "--option", "counting=exact", "--threads", "1"]);
    expect(densityStored).toBeCloseTo(0.5, 3);
    expect(bytesOnDisk).toBeGreaterThan(13e6);
    expect(JSON.parse(readFileSync(join(out("dense"), "rarefy.json"), "utf8")).tensors).toBeUndefined();
  });
});

test("quantize keeps codes that q4 runs as they are", async () => {
  const args = ["quantize", model, "--bits", "4", ...calib, ...text, "-o", out("q4")];
  const row = await rarefyJson(args);
  expect(row.layers[0].matrices.q_proj).toMatchObject({ bits: 4, groupSize: 32 });
  const tensors = JSON.parse(readFileSync(join(out("q4"), "rarefy.json"), "utf8")).tensors;
  expect(tensors["model.layers.0.mlp.up_proj.weight"]).toMatchObject({
    encoding: "grid",
    grid: { scaleDType: "BF16" },
  });
  expect(row.perplexity).toBeLessThan(1.3 * row.before.perplexity);
});

test("compress runs a recipe file in YAML", async () => {
  const recipe = out("recipe.yaml");
  writeFileSync(
    recipe,
    [
      "version: 1",
      "title: slimmer and sparse",
      "stages:",
      "  - type: dropLayers",
      "    count: 1",
      "  - { type: prune, method: wanda, pattern: { type: heads, sparsity: 0.25 } }",
      "  - { type: prune, method: wanda, pattern: 2:4, ignore: ['**.layers.0.**'] }",
    ].join("\n"),
  );
  const { layers, densityStored } = await rarefyJson([
    "compress",
    model,
    "--recipe",
    recipe,
    ...calib,
    "-o",
    out("slim"),
  ]);
  expect(layers).toHaveLength(5);
  expect(densityStored).toBeLessThan(0.5);
  const config = JSON.parse(readFileSync(join(out("slim"), "config.json"), "utf8"));
  expect(config).toMatchObject({ num_hidden_layers: 5, num_attention_heads: 6, num_key_value_heads: 3, head_dim: 32 });
  const { recipe: stored } = JSON.parse(readFileSync(join(out("slim"), "rarefy.json"), "utf8")).origin.compression;
  expect(stored).toMatchObject({ title: "slimmer and sparse", calibration: { windows: 4, window: 64 } });
  const { text: written } = await rarefyJson([
    "run",
    out("slim"),
    "--prompt",
    "The sea",
    "--max-tokens",
    "4",
    "--threads",
    "1",
  ]);
  expect(written.length).toBeGreaterThan(0);
});

test("sweep puts candidates in one table and does nothing twice", async () => {
  const args = ["sweep", model, "--recipe", "magnitude-50", "wanda-50", "--sparsity", "0.3,2:4", ...calib, ...text];
  const { entries } = await rarefyJson([...args, "-o", out("sweep")]);
  expect(entries.map(({ name }: { name: string }) => name)).toEqual([
    "tiny-6m",
    "magnitude-0.3",
    "magnitude-2of4",
    "wanda-0.3",
    "wanda-2of4",
  ]);
  for (const { row, layers, recipe } of entries.slice(1)) {
    expect(row.perplexity).toBeGreaterThan(entries[0].row.perplexity);
    expect(row.densityStored).toBeLessThan(0.75);
    expect(layers).toHaveLength(6);
    expect(recipe.calibration.windows).toBe(4);
  }
  const before = readFileSync(join(out("sweep"), "wanda-0.3.json"));
  await rarefyJson([...args, "-o", out("sweep")]);
  expect(readFileSync(join(out("sweep"), "wanda-0.3.json")).equals(before)).toBe(true);
  expect(readdirSync(out("sweep")).filter((name) => !name.endsWith(".json"))).toEqual([]);
});

test("sweep --speed times all in turn, again when one joins", async () => {
  const sweep = (sparsity: string) =>
    rarefyJson([
      ...["sweep", model, "--recipe", "magnitude-50", "--sparsity", sparsity, "--threads", "1", ...text],
      ...["--speed", "--repeats", "1", "-o", out("timed")],
    ]);
  type Entry = { name: string; row: { decodeTokensPerSecond: { median: number } } };
  const speeds = ({ entries }: { entries: Entry[] }) => entries.map(({ row }) => row.decodeTokensPerSecond.median);
  const first = await sweep("0.3");
  for (const speed of speeds(first)) expect(speed).toBeGreaterThan(0);
  expect(Object.keys(first.entries[0])).not.toContain("timing");
  expect(readdirSync(out("timed")).filter((name) => !name.endsWith(".json"))).toEqual([]);
  expect(speeds(await sweep("0.3"))).toEqual(speeds(first));
  const joined = await sweep("0.3,0.6");
  expect(speeds(joined)).toHaveLength(3);
  for (const [i, speed] of speeds(first).entries()) expect(speeds(joined)[i]).not.toBe(speed);
  expect(joined.entries[1].row).toMatchObject({ elapsedMs: first.entries[1].row.elapsedMs });
});

test("sweep notices other weights under the same path, and neither takes over nor removes what is not its own", async () => {
  const copy = out("source");
  cpSync(join(root, model), copy, { recursive: true });
  const args = ["sweep", copy, "--recipe", "magnitude-50", "--threads", "1", ...text, "-o", out("moving")];
  const before = await rarefyJson(args);
  const file = join(copy, "model.safetensors");
  const bytes = readFileSync(file);
  bytes.fill(0, bytes.length - 1_000_000);
  writeFileSync(file, bytes);
  const refused = await rarefy([...args, "--quiet"]);
  expect(refused.stderr).toMatch(/moving\/source.json was measured with other settings, texts or weights/);
  const users = join(out("moving"), "magnitude-50.partial");
  mkdirSync(users);
  writeFileSync(join(users, "job.json"), JSON.stringify({ job: "another" }));
  const other = await rarefy([...args, "--force", "--quiet"]);
  expect(other.stderr).toMatch(/magnitude-50.partial\/job.json was not put there by rarefy/);
  rmSync(users, { recursive: true });
  const after = await rarefyJson([...args, "--force"]);
  for (const [i, { row }] of after.entries.entries()) {
    expect(row.perplexity, row.model).not.toBe(before.entries[i].row.perplexity);
  }
});

test("presets lists recipes and methods", async () => {
  const { presets, methods } = await rarefyJson(["presets"]);
  expect(presets["sparsegpt-2:4"].stages[0]).toMatchObject({ type: "prune", method: "sparsegpt" });
  expect(methods.prune.map(({ id }: { id: string }) => id)).toContain("wrp");
  expect(methods.quantize[0].options.bits).toMatchObject({ default: 4, maximum: 8 });
});

describe.skipIf(process.platform === "win32")("a command that is killed or stopped", () => {
  // Blocks that take long enough for a signal to arrive before the next one ends.
  const args = ["prune", model, "--pattern", "2:4", ...calib, "--window", "256"];

  test("goes on when given again, and ends with the same bytes", async () => {
    await rarefyJson([...args, "-o", out("whole")]);
    let kills = 0;
    for (const [i, when] of [/"stage":"write weights"/, /block [34] of 6/].entries()) {
      const output = out(`killed-${i}`);
      const killed = await rarefy([...args, "-o", output], { interrupt: { signal: "SIGKILL", when } });
      if (killed.code === 0) continue; // a fast machine was done before the signal came
      expect(killed.code).toBeNull();
      kills++;
      const { resumedBlocks } = await rarefyJson([...args, "-o", output]);
      if (i > 0) expect(resumedBlocks).toBeGreaterThan(0);
      expectSameFiles(output, out("whole"));
    }
    expect(kills).toBeGreaterThan(0);
  });

  test("a stopped one says what it left", async () => {
    const output = out("stopped");
    const finished = await rarefy([...args, "-o", output], {
      interrupt: { signal: "SIGINT", when: /block [34] of 6/ },
    });
    expect(finished.code).toBe(130);
    expect(finished.stderr).toMatch(
      /Stopped\. .*stopped\.partial holds \d of 6 blocks; the same command goes on from there\.\n$/,
    );
    expect(existsSync(output)).toBe(false);
    const other = await rarefy([...args, "--option", "damping=0.5", "-o", output, "--quiet"]);
    expect(other.stderr).toMatch(/holds another job/);
    expect(other.code).toBe(2);
    await rarefyJson([...args, "--option", "damping=0.5", "-o", output, "--restart"]);
  });
});

describe("errors are clear and come before any work", () => {
  const fails = async (args: readonly string[]): Promise<Finished> => {
    const finished = await rarefy([...args, "-o", out("never"), "--quiet", "--threads", "1"]);
    expect(finished.stdout).toBe("");
    expect(finished.stderr).not.toMatch(/^ +at /m);
    expect(existsSync(`${out("never")}.partial`)).toBe(false);
    return finished;
  };

  test.each<[string, string[], number, RegExp]>([
    [
      "a pattern that does not fit, once for all layers",
      ["prune", model, "--method", "magnitude", "--pattern", "3:7"],
      1,
      /layers\.\*\.mlp\.down_proj\.weight: 704 columns are not a multiple of 7 \(3:7\), in 6 layers/,
    ],
    [
      "an option that the method does not have, with those that it has",
      ["prune", model, "--method", "wanda", "--sparsity", "0.5", "--option", "alphaSerch=true"],
      1,
      /"alphaSerch"; there are alphaSearch/,
    ],
    [
      "a pattern that the method does not have, in the words of the command line",
      ["prune", model, "--method", "wrp", "--pattern", "rows", "--sparsity", "0.5"],
      1,
      /has no pattern rows; it has keep:group/,
    ],
    [
      "what stands in the way of any candidate of a sweep, before the first",
      ["sweep", model, "--recipe", "magnitude-50", "wrp-2:4", "--sparsity", "0.3,3:7", ...text, ...calib],
      1,
      /this sweep cannot be done\n {2}- magnitude-3of7: .*multiple of 7[\s\S]*wrp-0\.3: .*no pattern unstructured/,
    ],
    ["no calibration text", ["prune", model, "--sparsity", "0.5"], 1, /needs a calibration text/],
    ["neither sparsity nor pattern", ["prune", model], 2, /give --sparsity, or --pattern/],
    ["two sparsities", ["prune", model, "--sparsity", "0.3", "--pattern", "2:4"], 2, /leave --sparsity out/],
    ["an option that is none", ["prune", model, "--sparsity", "0.5", "--option", "dampin=3", ...calib], 1, /dampin/],
    ["no preset and no file", ["compress", model, "--recipe", "nothing"], 2, /neither a preset \(sparsegpt-50/],
    ["a recipe that is no YAML", ["compress", model, "--recipe", "package.json"], 1, /package\.json: version/],
    [
      "a range without a step",
      ["sweep", model, "--recipe", "wanda-50", "--sparsity", "0.5..", ...text],
      2,
      /ranges? like 0\.3\.\.0\.8/,
    ],
  ])("%s", async (_name, args, code, message) => {
    const finished = await fails(args);
    expect(finished.stderr).toMatch(message);
    expect(finished.code).toBe(code);
  });

  test("all problems at once", async () => {
    const recipe = out("wrong.json");
    const stages = [
      { type: "prune", method: "obs", pattern: { type: "columns", sparsity: 0.5 } },
      { type: "quantize", method: "gptq", options: { bits: 9 }, targets: ["nothing"] },
    ];
    writeFileSync(recipe, JSON.stringify({ version: 1, stages }));
    const { stderr } = await fails(["compress", model, "--recipe", recipe]);
    expect(stderr).toMatch(/this job cannot be done\n {2}- stage 1 \(prune obs\): it has no pattern columns/);
    expect(stderr).toMatch(/"nothing" matches no matrix/);
    expect(stderr).toMatch(/options\.bits/);
  });
});

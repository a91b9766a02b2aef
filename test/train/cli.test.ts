import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { trainMethods } from "../../src/train/index.js";
import { ensureInstalled, rarefy, rarefyJson } from "../support/rarefy.js";
import { smallConfig, trainingText } from "./smallModel.js";

const scratch = mkdtempSync(join(tmpdir(), "rarefy-train-"));
const text = join(scratch, "text.txt");
const at = (name: string) => join(scratch, name);
/** A decoder of one narrow layer with the tokenizer of the packaged model. */
const config = at("config");
const model = at("model");
const small = ["--text", text, "--window", "8", "--batch", "1", "--warmup", "0"];

let trained: { perplexityBefore: number; perplexityAfter: number };
const train = ["train", config, ...small, "--rate", "0.01", "--steps", "20", "--eval-text", text, "-o", model];

beforeAll(async () => {
  ensureInstalled();
  writeFileSync(text, trainingText(8000));
  smallConfig(config);
  trained = await rarefyJson(train);
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const weightsOf = (directory: string) => readFileSync(join(directory, "model.safetensors"));

/** Zero entries of the linear weights of the blocks. */
async function zerosOf(directory: string): Promise<Map<string, number[]>> {
  const checkpoint = await openCheckpoint(directoryFiles(directory));
  const zeros = new Map<string, number[]>();
  for (const name of checkpoint.tensors.keys()) {
    if (!name.includes("_proj")) continue;
    const values = await checkpoint.readFloat32(name);
    zeros.set(
      name,
      [...values.keys()].filter((i) => values[i] === 0),
    );
  }
  await checkpoint.close();
  return zeros;
}

/** Embedding, q and o, k and v, gate, up and down, three norms. */
const parameters = 8192 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 64 + 3 * 32;

test("train begins from random weights of the config's shape and learns", async () => {
  // Nothing is known at first: about one in 8192.
  expect(trained.perplexityBefore).toBeGreaterThan(7000);
  expect(trained.perplexityAfter).toBeLessThan(0.9 * trained.perplexityBefore);
  const inspected = await rarefyJson(["inspect", model]);
  expect(inspected.parameters.total).toBe(parameters);
});

test("a text may be compressed with xz; one that is missing is named", async () => {
  const compressed = at("text.txt.xz");
  // printf "one two three four five six seven eight nine ten\n" | xz -9
  const xz =
    "/Td6WFoAAATm1rRGAgAhARwAAAAQz1jMAQAwb25lIHR3byB0aHJlZSBmb3VyIGZpdmUgc2l4IHNldmVuIGVpZ2h0IG5pbmUgdGVuCgAAAADc+sDtPOdGtwABSTFdQeNQH7bzfQEAAAAABFla";
  writeFileSync(compressed, Buffer.from(xz, "base64"));
  const few = ["--window", "2", "--batch", "1", "--warmup", "0", "--steps", "1"];
  expect(await rarefyJson(["train", config, "--text", compressed, ...few, "-o", at("from-xz")])).toMatchObject({
    steps: 1,
  });

  const missing = await rarefy(["train", config, "--text", at("none.xz"), ...few, "-o", at("none")]);
  expect(missing.code).toBe(1);
  expect(missing.stderr).toMatch(/none\.xz: there is no such file/);
  expect(missing.stderr).not.toMatch(/\n +at /);
});

const pruned = at("pruned");
/** One step under a 2:4 mask by magnitude: the cheapest pruned model. */
const prune = [
  "finetune",
  model,
  ...small,
  "--steps",
  "1",
  "--method",
  "fixed-mask",
  "--method-option",
  "mask=magnitude",
];

describe("finetune", () => {
  beforeAll(async () => {
    const document = await rarefyJson([...prune, "-o", pruned]);
    expect(document).toMatchObject({ sparsity: 0.5, steps: 1, method: "fixed-mask" });
  });

  test("--keep-mask keeps every zero, and moves the other weights", async () => {
    const kept = at("kept");
    writeFileSync(join(pruned, "text.xz"), "not the model's");
    const document = await rarefyJson([
      "finetune",
      pruned,
      ...small,
      "--steps",
      "2",
      "--keep-mask",
      "--dtype",
      "f32",
      "-o",
      kept,
    ]);
    expect(document).toMatchObject({ method: "fixed-mask", sparsity: 0.5 });
    const [before, after] = [await zerosOf(pruned), await zerosOf(kept)];
    expect(before.get("model.layers.0.mlp.up_proj.weight")).toHaveLength((64 * 32) / 2);
    expect(after).toEqual(before);
    expect(weightsOf(kept)).not.toEqual(weightsOf(pruned));
    expect(readdirSync(kept).sort()).toEqual([
      ".rarefy.json",
      "config.json",
      "model.safetensors",
      "rarefy.json",
      "tokenizer.json",
      "tokenizer_config.json",
      "training.jsonl",
      "training.svg",
    ]);
    const inspected = await rarefyJson(["inspect", kept]);
    expect(inspected.parameters.total).toBe(parameters);
  });

  test.skipIf(process.platform === "win32")(
    "stopped by Ctrl-C and given again, it ends with the same bytes as without a stop",
    async () => {
      const settings = [...small, "--steps", "24", "--method", "sr-ste", "--save-every", "9", "--dtype", "f32"];
      const [whole, stopped] = [at("whole"), at("stopped")];
      await rarefyJson(["finetune", model, ...settings, "-o", whole]);
      const first = await rarefy(["finetune", model, ...settings, "-o", stopped], {
        interrupt: { signal: "SIGINT", when: /"train","done":[1-9],/ },
      });
      expect(first.code).toBe(130);
      expect(existsSync(stopped)).toBe(false);
      expect(readdirSync(`${stopped}.run`).filter((name) => name.startsWith("step-"))).toHaveLength(1);

      const other = await rarefy(["finetune", model, ...settings, "--rate", "0.5", "-o", stopped, "--quiet"]);
      expect(other.code).toBe(2);
      expect(other.stderr).toMatch(/a run with other settings/);

      await rarefyJson(["finetune", model, ...settings, "-o", stopped]);
      expect(weightsOf(stopped).equals(weightsOf(whole))).toBe(true);
      expect(existsSync(`${stopped}.run`)).toBe(false);
      const log = (directory: string) =>
        readFileSync(join(directory, "training.jsonl"), "utf8")
          .trim()
          .split("\n")
          .map((line) => ({ ...JSON.parse(line), elapsedMs: 0 }));
      expect(log(stopped)).toEqual(log(whole));
      expect(log(whole).map(({ step }) => step)).toEqual(Array.from({ length: 24 }, (_, i) => i + 1));
    },
  );
});

test("presets --methods lists the methods of training with their options", async () => {
  const { methods } = await rarefyJson(["presets", "--methods"]);
  expect(methods.train.map(({ id }: { id: string }) => id)).toEqual(Object.keys(trainMethods));
  const rigl = methods.train.find(({ id }: { id: string }) => id === "rigl");
  expect(rigl.options.structure).toMatchObject({ type: "string", default: "unstructured" });
  const { stdout } = await rarefy(["presets", "--methods"]);
  expect(stdout).toMatch(/gradual: Gradual magnitude pruning .*\n {4}structure \["unstructured"\]/);
});

describe("experiment", () => {
  test("lists every experiment", async () => {
    const { experiments } = await rarefyJson(["experiment", "list"]);
    expect(experiments.map(({ id }: { id: string }) => id)).toEqual(
      expect.arrayContaining(["sinc", "spirals", "selection", "text-classification", "flip-rates", "lottery-ticket"]),
    );
  });

  test("runs at smoke scale, writes its report, and keeps finished runs", async () => {
    const output = at("spirals");
    const command = ["experiment", "run", "spirals", "--scale", "smoke", "-o", output];
    const document = await rarefyJson(command);
    expect(document.tables[0].rows.map((row: string[]) => row[0])).toEqual(["100 %", "20 %"]);
    expect(readdirSync(output)).toEqual(
      expect.arrayContaining(["density.svg", "mask.svg", "report.html", "report.json", "report.md", "retention.svg"]),
    );
    const cell = join(output, "cells", "global-20-seed0.json");
    const stored = JSON.parse(readFileSync(cell, "utf8"));
    expect(stored.device).toBe("wasm");
    writeFileSync(cell, JSON.stringify({ ...stored, result: { ...stored.result, test: 12.34 } }));
    const again = await rarefyJson(command);
    expect(again.tables[0].rows[1][2]).toBe("12.34");
    // A cell of other settings is run anew.
    writeFileSync(cell, JSON.stringify({ ...stored, cell: { ...stored.cell, seed: 7 } }));
    expect((await rarefyJson(command)).tables).toEqual(document.tables);
  });

  test("--only runs the cells that it names, which a later run takes over", async () => {
    const output = at("some");
    const command = ["experiment", "run", "spirals", "--scale", "smoke", "-o", output];
    const { cells } = await rarefyJson([...command, "--only", "layer-20-seed0"]);
    expect(cells.map(({ key }: { key: string }) => key)).toEqual(["layer-20-seed0"]);
    expect(readdirSync(output).sort()).toEqual([".rarefy.json", "cells"]);
    expect(readdirSync(join(output, "cells"))).toEqual(["layer-20-seed0.json"]);
  });
});

test.each<[string, string[], RegExp]>([
  [
    "an unknown method",
    ["finetune", model, ...small, "--method", "magic", "-o", "x"],
    /there is no method magic; there are dense/,
  ],
  [
    "a wrong method option",
    ["finetune", model, ...small, "--method", "sr-ste", "--method-option", "decay=-1", "-o", "x"],
    /decay/,
  ],
  [
    "a mask kept by another method",
    ["finetune", model, ...small, "--keep-mask", "--method", "ste", "-o", "x"],
    /--keep-mask is a method/,
  ],
  [
    "a text that is too short",
    ["finetune", model, "--text", "LICENSE", "--window", "60000", "-o", at("x")],
    /Give more text/,
  ],
  ["an unknown experiment", ["experiment", "run", "alchemy", "-o", "x"], /there is no experiment alchemy/],
  [
    "an unknown cell",
    ["experiment", "run", "sinc", "--scale", "smoke", "--only", "x", "-o", at("y")],
    /there is no cell x; there are/,
  ],
  ["an experiment without output", ["experiment", "run", "sinc"], /-o OUT/],
])("%s is one clear line", async (_name, args, message) => {
  const { code, stdout, stderr } = await rarefy([...args, "--quiet"]);
  expect(stderr).toMatch(message);
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
});

/** Neurons over all blocks together, so that blocks end with different widths. */
const acrossBlocks = JSON.stringify({
  version: 1,
  stages: [{ type: "prune", method: "magnitude", pattern: { type: "neurons", sparsity: 0.5, scope: "global" } }],
});

describe("finetune of a compressed model", () => {
  const deep = at("deep");
  beforeAll(async () => {
    smallConfig(at("deep-config"), { num_hidden_layers: 2, intermediate_size: 512 });
    writeFileSync(at("across.json"), acrossBlocks);
    await rarefyJson(["train", at("deep-config"), ...small, "--steps", "1", "-o", deep]);
  });

  test.each([
    ["blocks of different widths", at("across.json"), 0],
    ["2:4 in 8 bits", "sparsegpt-2:4-q8", 0.5],
    ["pairs of low rank", "svdllm-80", 0],
  ])("%s: the runtime reads the result", async (name, recipe, sparsity) => {
    const [compressed, tuned] = [at(`${name.length}-compressed`), at(`${name.length}-tuned`)];
    const calibration = ["--calib", text, "--window", "32", "--calibration-windows", "2"];
    await rarefyJson(["compress", deep, "--recipe", recipe, ...calibration, "-o", compressed]);
    const result = await rarefyJson(["finetune", compressed, ...small, "--keep-mask", "--steps", "1", "-o", tuned]);
    expect(result.sparsity).toBeCloseTo(sparsity, 2);
    const total = async (directory: string) => (await rarefyJson(["inspect", directory])).parameters.total;
    expect(await total(tuned)).toBe(await total(compressed));
    const blocksOf = (directory: string) => JSON.parse(readFileSync(join(directory, "rarefy.json"), "utf8")).blocks;
    expect(blocksOf(tuned)).toEqual(blocksOf(compressed));
    expect(blocksOf(tuned) === undefined).toBe(recipe !== at("across.json"));
  });
});

describe("finetune with an adapter", () => {
  const settings = ["finetune", model, ...small, "--steps", "6", "--rate", "0.05"];
  const perplexity = async (...args: string[]): Promise<number> =>
    (await rarefyJson(["eval", ...args, "--text", text, "--window", "8", "--weights", "f32"])).perplexity;

  test("the weights stay, and beside them it is the model that merging makes", async () => {
    const [adapter, merged] = [at("lora"), at("lora-merged")];
    const made = await rarefyJson([...settings, "--lora", "rank=3,alpha=6,targets=q_proj+down_proj", "-o", adapter]);
    expect(made.adapter).toEqual({ kind: "lora", rank: 3, alpha: 6, targets: ["q_proj", "down_proj"] });
    expect(readdirSync(adapter).sort()).toEqual([
      ".rarefy.json",
      "adapter_config.json",
      "adapter_model.safetensors",
      "rarefy.json",
      "training.jsonl",
      "training.svg",
    ]);
    expect(JSON.parse(readFileSync(join(adapter, "adapter_config.json"), "utf8"))).toMatchObject({
      peft_type: "LORA",
      r: 3,
      lora_alpha: 6,
      target_modules: ["q_proj", "down_proj"],
    });
    const before = await perplexity(model);
    const beside = await perplexity(model, "--adapter", adapter);
    expect(beside).toBeLessThan(before);
    await rarefyJson(["merge", model, "--adapter", adapter, "-o", merged]);
    expect((await perplexity(merged)) / beside).toBeCloseTo(1, 4);
    const told = async (...args: string[]) =>
      (await rarefyJson(["run", ...args, "--prompt", "It was", "--max-tokens", "4", "--temperature", "0"])).tokenIds;
    expect(await told(model, "--adapter", adapter)).toEqual(await told(merged));
  });

  test.each([
    ["molora", "experts=3,rank=2,targets=q_proj+down_proj", { rank: 2, alpha: 16 }],
    ["mov", "experts=3,topK=2", { topK: 2, inputsOf: ["down_proj"] }],
  ])("%s: experts are weighed for every token beside the weights, and merged by nobody", async (kind, given, own) => {
    const adapter = at(kind);
    const made = await rarefyJson([...settings, `--${kind}`, given, "--eval-text", text, "-o", adapter]);
    expect(made.adapter).toMatchObject({ kind, experts: 3, balance: 0, ...own });
    expect(made.perplexityAfter).toBeLessThan(made.perplexityBefore);
    expect(await perplexity(model, "--adapter", adapter)).toBeLessThan(await perplexity(model));
    for (const [args, reason] of [
      [["merge", model, "--adapter", adapter], /for every token/],
      [["lorahub", model, "--adapter", adapter, "--text", text], /mixture of (pairs|factors)/],
    ] as const) {
      const { code, stderr } = await rarefy([...args, "-o", at("refused-mixture")]);
      expect(stderr).toMatch(reason);
      expect(code).toBe(2);
    }
  });

  test("several make one for a new task, and its loss is that of the model that runs with it", async () => {
    const adapters = ["1", "2"].map((seed) => at(`hub-${seed}`));
    for (const [i, adapter] of adapters.entries()) {
      await rarefyJson([...settings, "--seed", String(i), "--lora", "rank=2", "-o", adapter]);
    }
    const out = at("hub");
    const search = ["lorahub", model, "--adapter", ...adapters, "--text", text, "--window", "48", "--max-windows", "1"];
    const made = await rarefyJson([...search, "--evaluations", "12", "--penalty", "0", "-o", out]);
    expect(made).toMatchObject({ optimizer: "one-plus-one", examples: 1, adapters, output: out });
    expect(made.loss).toBeLessThan(made.lossBefore);
    // The runtime, beside the weights, on the same tokens: a window of `eval` has the last label in it.
    const same = ["--text", text, "--window", "49", "--max-windows", "1", "--weights", "f32"];
    const beside = await rarefyJson(["eval", model, "--adapter", out, ...same]);
    expect(Math.log(beside.perplexity)).toBeCloseTo(made.loss, 4);
    expect(JSON.parse(readFileSync(join(out, "rarefy.json"), "utf8")).origin.training.weights).toEqual(made.weights);
    const { stderr, code } = await rarefy([...search, "--force", "-o", adapters[0]]);
    expect(stderr).toMatch(/is or contains the input/);
    expect(code).toBe(2);
  });

  test("with the mask kept, a pruned model stays as sparse as it was", async () => {
    const [pruned, recovered] = [at("lora-pruned"), at("lora-recovered")];
    await rarefyJson(["prune", model, "--method", "magnitude", "--sparsity", "0.5", "--store", "dense", "-o", pruned]);
    const { sparsity } = await rarefyJson([
      "finetune",
      pruned,
      ...settings.slice(2),
      "--lora",
      "--keep-mask",
      "-o",
      recovered,
    ]);
    expect(sparsity).toBeCloseTo(0.5, 2);
    expect(await zerosOf(recovered)).toEqual(await zerosOf(pruned));
    expect(await perplexity(recovered)).not.toBe(await perplexity(pruned));
  });

  test.each<[string, string[], RegExp]>([
    ["two kinds", ["--lora", "--ia3"], /one of them/],
    ["nothing to merge", ["--merge"], /belongs to --lora or --ia3/],
    ["a mixture in the weights", ["--molora", "--merge"], /anew for every token.*leave --merge out/],
    ["a mixture under a mask", ["--mov", "--keep-mask"], /anew for every token.*leave --keep-mask out/],
    ["a mixture beside packed weights", ["--mov", "--stream"], /whole model in memory; leave --stream out/],
    ["experts that are not there", ["--mov", "experts=2,topK=3"], /topK 3 of 2 experts/],
    ["a method for weights", ["--lora", "--method", "sr-ste"], /leave --method sr-ste out/],
    ["matrices that are not there", ["--lora", "targets=c_attn"], /no matrix of the blocks is called c_attn/],
    ["an option that is none", ["--lora", "range=8"], /the adapter lora: .*range/],
  ])("%s: refused", async (_, more, message) => {
    const { code, stderr } = await rarefy([...settings, ...more, "-o", at("refused-adapter")]);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });
});

describe("finetune with a teacher", () => {
  const settings = ["finetune", model, ...small, "--steps", "3", "--rate", "0.01", "--dtype", "f32"];

  test("a share of 0 is training on the text alone; with all of it the text is not learnt", async () => {
    const [plain, none, all] = [at("taught-plain"), at("taught-none"), at("taught-all")];
    await rarefyJson([...settings, "-o", plain]);
    expect(await rarefyJson([...settings, "--distil", "0", "-o", none])).toMatchObject({ distil: 0, temperature: 1 });
    expect(weightsOf(none).equals(weightsOf(plain))).toBe(true);
    await rarefyJson([...settings, "--distil", "1", "--temperature", "2", "-o", all]);
    const [first] = readFileSync(join(all, "training.jsonl"), "utf8").split("\n");
    // The student is its own teacher: before the first step they say the same.
    expect(Math.abs(JSON.parse(first).loss)).toBeLessThan(1e-4);
    expect(JSON.parse(first).prediction).toBeGreaterThan(1);
  });

  test("what the student writes itself is learnt from, and its own likeness teaches it nothing", async () => {
    const written = at("taught-written");
    const minillm = [...settings, "--distil", "1", "--distil-loss", "minillm", "--minillm-option"];
    const record = await rarefyJson([...minillm, "length=4", "teacherMix=0.5", "-o", written]);
    expect(record).toMatchObject({ distilLoss: "minillm", miniLlm: { length: 4, teacherMix: 0.5, singleStep: true } });
    const [first] = readFileSync(join(written, "training.jsonl"), "utf8").split("\n");
    expect(Math.abs(JSON.parse(first).loss)).toBeLessThan(1e-3);
    expect(JSON.parse(first).prediction).toBeGreaterThan(1);
    const { code, stderr } = await rarefy([...minillm, "length=4096", "-o", at("x"), "--quiet"]);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/leaves no beginning/)]);
  });

  test("blocks become like those of a wider teacher, whose matrices are not written; an adapter learns so too", async () => {
    const [matched, again, adapter] = [at("matched"), at("matched-itself"), at("matched-adapter")];
    const by = ["--teacher", "models/tiny-6m", "--match", "hidden=0.5", "relations=0.25", "layers=0:5"];
    const record = await rarefyJson([...settings, ...by, "-o", matched]);
    expect(record.match).toEqual({ hidden: 0.5, relations: 0.25, relative: true, layers: [[0, 5]] });
    expect(record.teacher).toMatch(/tiny-6m$/);
    expect((await rarefyJson(["inspect", matched])).parameters.total).toBe(parameters);
    const lossesOf = (directory: string) =>
      readFileSync(join(directory, "training.jsonl"), "utf8")
        .trim()
        .split("\n")
        .map((line): { loss: number; prediction?: number } => JSON.parse(line));
    expect(lossesOf(matched).every(({ loss, prediction }) => loss > prediction!)).toBe(true);
    // A model is like itself before the first step: the text is all that there is to learn.
    await rarefyJson([...settings, "--match", "hidden=1", "relations=1", "-o", again]);
    const [first, second] = lossesOf(again);
    expect(Math.abs(first.loss - (first.prediction ?? first.loss))).toBeLessThan(1e-4);
    expect(second.loss).toBeGreaterThan(second.prediction!);
    await rarefyJson([...settings, ...by, "--lora", "rank=2", "-o", adapter]);
    expect(readdirSync(adapter)).toContain("adapter_model.safetensors");
    expect(readFileSync(join(adapter, "adapter_model.safetensors")).includes("matching")).toBe(false);
  });

  test("what a teacher says of records counts where they are learnt", async () => {
    const records = at("records.jsonl");
    writeFileSync(records, `${JSON.stringify({ prompt: "one two", response: " three four" })}\n`);
    const alone = [...settings, "--text", records, "--window", "16", "--distil", "1", "--distil-loss"];
    const record = await rarefyJson([...alone, "reverse-kl", "-o", at("taught-records")]);
    expect(record).toMatchObject({ distil: 1, distilLoss: "reverse-kl" });
    const [first] = readFileSync(join(at("taught-records"), "training.jsonl"), "utf8").split("\n");
    expect(Math.abs(JSON.parse(first).loss)).toBeLessThan(1e-4);
    expect(JSON.parse(first).prediction).toBeGreaterThan(1);
    const { code, stderr } = await rarefy([
      ...alone,
      "minillm",
      "--minillm-option",
      "length=4",
      "-o",
      at("x"),
      "--quiet",
    ]);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/leave --distil-loss minillm out/)]);
  });

  test("another model may teach, if it has the same tokens", async () => {
    const taught = await rarefyJson([
      ...settings,
      "--distil",
      "0.5",
      "--teacher",
      "models/tiny-6m",
      "-o",
      at("taught-tiny"),
    ]);
    expect(taught.teacher).toMatch(/tiny-6m$/);
    const other = at("other-tokens");
    const { code, stderr } = await rarefy([
      ...settings,
      "--distil",
      "0.5",
      "--teacher",
      other,
      "-o",
      at("x"),
      "--quiet",
    ]);
    expect({ code, stderr }).toMatchObject({ code: 2, stderr: expect.stringMatching(/there is no directory/) });
  });

  test.each<[string, string[], RegExp]>([
    ["a temperature without a teacher", [...settings, "--temperature", "2"], /belong to --distil/],
    ["a teacher of nothing", [...settings, "--teacher", "models/tiny-6m"], /belongs to --distil or --match/],
    ["random weights to be like", ["train", config, ...small, "--match", "hidden=1"], /--match needs a --teacher/],
    ["matching that is none", [...settings, "--match", "hiden=1"], /--match: .*hiden/],
    ["matching of nothing", [...settings, "--match", "hidden=0"], /nothing is matched/],
    ["a block that is not there", [...settings, "--match", "layers=0:1"], /the teacher has no block 1/],
    ["blocks that are no pairs", [...settings, "--match", "layers=0-1"], /--match: layers/],
    [
      "matching beside streamed weights",
      [...settings, "--lora", "--stream", "--match", "hidden=1"],
      /--match needs all/,
    ],
    ["random weights as a teacher", ["train", config, ...small, "--distil", "0.5"], /--distil needs a --teacher/],
  ])("%s is refused", async (_name, args, message) => {
    const { code, stderr } = await rarefy([...args, "-o", at("x"), "--quiet"]);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });
});

test("finetune of a GGUF file leaves no second set of weights", async () => {
  const tuned = at("tuned-gguf");
  await rarefyJson(["export", model, "--format", "gguf", "-o", at("model.gguf")]);
  await rarefyJson(["finetune", at("model.gguf"), ...small, "--steps", "1", "-o", tuned]);
  expect(readdirSync(tuned).filter((file) => /safetensors|gguf/.test(file))).toEqual(["model.safetensors"]);
  expect((await rarefyJson(["inspect", tuned])).parameters.total).toBe(parameters);
});

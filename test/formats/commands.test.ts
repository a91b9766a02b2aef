import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ensureInstalled, rarefy } from "../support/rarefy.js";

beforeAll(ensureInstalled);
const root = await mkdtemp(join(tmpdir(), "rarefy-files-"));
afterAll(() => rm(root, { recursive: true }));
const path = (name: string) => join(root, name);
const text = "models/text/books-eval.txt";

async function document(...args: string[]) {
  const { code, stdout, stderr } = await rarefy([...args, "--json", "--quiet"]);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  return JSON.parse(stdout);
}

test("a GGUF file is written, evaluated, calibrated and exported again", async () => {
  const file = path("tiny.gguf");
  const exported = await document("export", "models/tiny-6m", "--format", "gguf", "--type", "bf16", "-o", file);
  expect(exported).toMatchObject({ format: "gguf", type: "bf16", verification: { tensors: 56, unchanged: 56 } });
  const evaluate = ["--text", text, "--max-windows", "1", "--window", "64", "--threads", "1"];
  const [before, after] = [
    await document("eval", "models/tiny-6m", ...evaluate),
    await document("eval", file, ...evaluate),
  ];
  expect(after.perplexity).toBe(before.perplexity);

  const calibrate = [
    "--text",
    "models/text/calib.txt",
    "--calibration-windows",
    "1",
    "--window",
    "64",
    "--threads",
    "1",
  ];
  await document("calibrate", file, ...calibrate, "-o", path("sparse"));
  expect((await readdir(path("sparse"))).toSorted()).toEqual([
    ".rarefy.json",
    "config.json",
    "model.gguf",
    "rarefy.json",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  expect((await document("eval", path("sparse"), ...evaluate)).activationSparsity).toBeGreaterThan(0.3);

  await document("report", path("sparse"), "-o", path("page.html"));
  const page = await readFile(path("page.html"), "utf8");
  expect(page).toContain("layer 5, mlpHidden");
  expect(JSON.parse(await readFile(path("page.json"), "utf8")).runs[0].candidates[0].name).toBe("sparse");
});

test("says what is wrong with a path", async () => {
  const refused = async (...args: string[]) => {
    const { code, stderr } = await rarefy(args);
    expect(code).toBe(2);
    return stderr;
  };
  expect(await refused("export", "models/tiny-6m", "--format", "gguf", "-o", path("x.bin"))).toContain("ends in .gguf");
  expect(await refused("report", "models/text", "-o", path("x.html"))).toContain("neither sweep.json nor rarefy.json");
  expect(await refused("eval", text, "--text", text)).toContain("is a file and no GGUF file");
});

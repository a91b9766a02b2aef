import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import { ensureInstalled, rarefy } from "../support/rarefy.js";
import { smallConfig, trainingText } from "./smallModel.js";

/**
 * A training command killed by signal 9 at random moments, again and again, ends as one that was left alone: with a teacher
 * and moving thresholds, and with masks that are drawn. scripts/check-kills.mjs kills the other jobs.
 */

const scratch = mkdtempSync(join(tmpdir(), "rarefy-kills-"));
const [text, config, model, wide, teacher] = ["text.txt", "config", "model", "wide", "teacher"].map((name) =>
  join(scratch, name),
);
const steps = 30;

beforeAll(async () => {
  ensureInstalled();
  writeFileSync(text, trainingText(4000));
  smallConfig(config);
  const { code, stderr } = await train(["train", config, ...common, "--steps", "1", "-o", model]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  smallConfig(wide, { hidden_size: 48, num_hidden_layers: 2 });
  expect(await train(["train", wide, ...common, "--steps", "1", "-o", teacher])).toMatchObject({ code: 0 });
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const common = ["--text", text, "--window", "8", "--batch", "1", "--warmup", "0", "--dtype", "f32"];
const train = (args: readonly string[]) => rarefy([...args, "--quiet"]);

/** Output of each run in a directory of its own, under the same name. */
function place(name: string): { parent: string; output: string } {
  const parent = join(scratch, name);
  mkdirSync(parent);
  return { parent, output: join(parent, "out") };
}

/** Everything of a model directory but how long things took. */
function contentOf(directory: string) {
  const read = (name: string) => readFileSync(join(directory, name), "utf8");
  const log = read("training.jsonl").trim().split("\n");
  const { training } = JSON.parse(read("rarefy.json")).origin;
  return {
    names: readdirSync(directory).sort(),
    weights: readFileSync(join(directory, "model.safetensors")).toString("base64"),
    curve: read("training.svg"),
    log: log.map((line) => ({ ...JSON.parse(line), elapsedMs: 0 })),
    training: { ...training, tokensPerSecond: 0 },
  };
}

/** Matches progress of at least `step` steps, or the writing of the model. */
const reached = (step: number) =>
  new RegExp(
    `"train","done":(${Array.from({ length: steps - step + 1 }, (_, i) => step + i).join("|")}),|"stage":"write`,
  );

describe.skipIf(process.platform === "win32")("finetune killed by signal 9", () => {
  test.each<[string, string[], string[]?]>([
    ["cast", ["interval=2", "decay=0.01"], ["--distil", "0.5"]],
    // The matrices through which a wider teacher is matched are part of the run, and not of the model.
    ["dense", [], ["--teacher", teacher, "--match", "hidden=0.5", "relations=0.5"]],
    ["sr-ste", ["pattern=2:4"], ["--context-pruning", "rank=4,weight=0.5"]],
    ["rigl", ["interval=4", "density=0.4", "structure=block:4x4"], ["--layer-gates", "hard:share=0.5,units=sublayers"]],
  ])("%s", async (method, methodOptions, more = []) => {
    const args = ["finetune", model, ...common, ...more, "--steps", String(steps), "--save-every", "4"];
    const settings = [
      ...args,
      "--rate",
      "0.01",
      "--method",
      method,
      ...(methodOptions.length > 0 ? ["--method-option", ...methodOptions] : []),
    ];
    const whole = place(`${method}-whole`);
    expect(await train([...settings, "-o", whole.output])).toMatchObject({ code: 0 });

    const { parent, output } = place(`${method}-killed`);
    const random = new Random(method.length);
    const moments = [1 + random.integer(8), 10 + random.integer(8), 20 + random.integer(8)].map(reached);
    let kills = 0;
    for (const when of [...moments, /"stage":"write/]) {
      const { code, stderr } = await rarefy([...settings, "-o", output], { interrupt: { signal: "SIGKILL", when } });
      if (code === 0) break; // a fast machine was done before the signal came
      expect(code).toBeNull();
      kills++;
      // It went on from a state that was stored before the kills.
      if (kills > 2) expect(Number(/"stage":"train".*"total":(\d+)/.exec(stderr)![1])).toBeLessThan(steps);
      expect(readdirSync(parent).filter((name) => !name.startsWith("."))).toEqual([`${basename(output)}.run`]);
    }
    expect(kills).toBeGreaterThanOrEqual(3);
    if (!existsSync(output)) expect(await train([...settings, "-o", output])).toMatchObject({ code: 0 });
    expect(readdirSync(parent)).toEqual([basename(output)]);
    expect(contentOf(output)).toEqual(contentOf(whole.output));
  });
});

test("what is not a run's own is neither taken for one nor removed with it", async () => {
  const { output } = place("foreign");
  mkdirSync(`${output}.run`);
  cpSync("LICENSE", join(`${output}.run`, "thesis.txt"));
  const { code, stderr } = await train(["finetune", model, ...common, "--steps", "1", "-o", output]);
  expect(stderr).toMatch(/thesis.txt was not put there by rarefy/);
  expect({ code, kept: existsSync(join(`${output}.run`, "thesis.txt")) }).toEqual({ code: 2, kept: true });
});

test("an output that cannot be written to is refused before anything is trained", async () => {
  const { output } = place("taken");
  mkdirSync(output);
  cpSync("LICENSE", join(output, "thesis.txt"));
  const { code, stderr } = await rarefy(["finetune", model, ...common, "--steps", "1", "-o", output]);
  expect(stderr).toMatch(/is not empty and was not made by rarefy/);
  expect(stderr).not.toMatch(/^train /m);
  expect({ code, run: existsSync(`${output}.run`) }).toEqual({ code: 2, run: false });
});

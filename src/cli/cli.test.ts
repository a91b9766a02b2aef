import { Option } from "commander";
import { expect, test } from "vitest";
import { FormatError, UsageError } from "../core/index.js";
import { runCli } from "./cli.js";
import type { CommandDefinition } from "./command.js";
import { integer, number } from "./numbers.js";

/** Runs one made-up command and returns everything that came out. */
async function rarefy(argv: string[], run: CommandDefinition["run"], signal = new AbortController().signal) {
  let out = "";
  let error = "";
  const stream = (write: (text: string) => void) => ({ isTTY: false, write }) as unknown as NodeJS.WriteStream;
  const definition: CommandDefinition = {
    description: "A made-up command.",
    arguments: [["MODEL", "a model"]],
    options: [
      new Option("--sparsity <share>", "share").argParser(number({ min: 0, max: 1, belowMax: true })),
      new Option("--window <n>", "tokens").argParser(integer({ min: 2 })),
    ],
    examples: ["rarefy probe tiny --window 4"],
    run,
  };
  const probe = { name: "probe", summary: "a made-up command", load: async () => ({ command: definition }) };
  const code = await runCli([probe], argv, {
    stdin: process.stdin,
    stdout: stream((text) => (out += text)),
    stderr: stream((text) => (error += text)),
    signal,
    version: "1.2.3",
  });
  return { code, out, error };
}

const fine: CommandDefinition["run"] = async (context, options, args) => {
  context.onProgress?.({ stage: "work", done: 2, total: 2, unit: "steps", elapsedMs: 1 });
  context.print("some text\n");
  return { args, options };
};

test("text goes to stdout and progress to stderr, as text or, with --json, as JSON", async () => {
  const text = await rarefy(["probe", "tiny"], fine);
  expect(text).toMatchObject({
    code: 0,
    out: "some text\n",
    error: expect.stringMatching(/^work {2}100 % {2}2\/2 steps.*\n$/),
  });
  const { error } = await rarefy(["probe", "tiny", "--json"], fine);
  expect(JSON.parse(error)).toMatchObject({ stage: "work", done: 2 });
});

test("--json prints the one document and --quiet no progress", async () => {
  const { code, out, error } = await rarefy(["probe", "tiny", "--json", "--quiet", "--window", "8"], fine);
  expect({ code, error }).toEqual({ code: 0, error: "" });
  expect(JSON.parse(out)).toEqual({ args: ["tiny"], options: { json: true, quiet: true, window: 8 } });
});

test("--help shows options and examples, --version the version", async () => {
  const help = await rarefy(["probe", "--help"], fine);
  expect(help.code).toBe(0);
  for (const part of ["MODEL", "--sparsity", "--json", "$ rarefy probe tiny --window 4"])
    expect(help.out).toContain(part);
  expect(await rarefy(["help", "probe"], fine)).toEqual(help);
  expect((await rarefy(["help"], fine)).out).toContain("probe");
  for (const words of ["--version", "version"])
    expect(await rarefy([words], fine)).toEqual({ code: 0, out: "1.2.3\n", error: "" });
});

test.each([
  [["probe"], "missing required argument 'MODEL'"],
  [["probe", "a", "b"], "too many arguments"],
  [["prob", "a"], "Did you mean probe?"],
  [["probe", "a", "--windw", "3"], "Did you mean --window?"],
  [["probe", "a", "--sparsity", "1"], "Give a number of at least 0 and below 1."],
  [["probe", "a", "--sparsity", "half"], "Give a number of at least 0 and below 1."],
  [["probe", "a", "--window", "1"], "Give a whole number of at least 2."],
  [["probe", "a", "--window", "2.5"], "Give a whole number of at least 2."],
  [["probe", "a", "--window", ""], "Give a whole number of at least 2."],
])("usage error %j exits 2 and says why", async (argv, message) => {
  const { code, out, error } = await rarefy(argv, fine);
  expect({ code, out }).toEqual({ code: 2, out: "" });
  expect(error).toContain(message);
});

test("what is not done goes to stderr, with --quiet too", async () => {
  const warned = await rarefy(["probe", "tiny", "--quiet"], async (context) => {
    context.complain("half of it is missing");
    return {};
  });
  expect(warned).toEqual({ code: 0, out: "", error: "error: half of it is missing\n" });
});

test("an expected error is one line with exit code 1; a usage error 2; a bug names its type", async () => {
  const failing = (thrown: unknown) =>
    rarefy(["probe", "tiny", "--json"], async () => {
      throw thrown;
    });
  const format = await failing(new FormatError({ file: "config.json", field: "layers", problem: "is 0" }));
  expect(format).toEqual({ code: 1, out: "", error: "error: config.json: layers: is 0\n" });
  expect(await failing(new UsageError("no such thing"))).toMatchObject({ code: 2, error: "error: no such thing\n" });
  const bug = await failing(new TypeError("x is undefined"));
  expect(bug).toMatchObject({ code: 1, error: "error: TypeError: x is undefined (--verbose shows the stack)\n" });
});

test("--verbose shows the stack and the cause", async () => {
  const { code, error } = await rarefy(["probe", "tiny", "--verbose"], async () => {
    throw new FormatError({ file: "f", problem: "is broken" }, { cause: new Error("the reason") });
  });
  expect(code).toBe(1);
  expect(error).toMatch(/FormatError: f: is broken\n +at /);
  expect(error).toContain("the reason");
});

test("an aborted command says so and exits 130", async () => {
  const controller = new AbortController();
  const { code, out, error } = await rarefy(
    ["probe", "tiny", "--json"],
    async (context) => {
      controller.abort();
      context.signal.throwIfAborted();
      return {};
    },
    controller.signal,
  );
  expect({ code, out, error }).toEqual({ code: 130, out: "", error: "Stopped.\n" });
});

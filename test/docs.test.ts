import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, expect, test } from "vitest";
import { commands } from "../src/cli/commands/index.js";
import { createProgram } from "../src/cli/program.js";
import { ensureInstalled, root } from "./support/rarefy.js";

beforeAll(ensureInstalled);

const read = (path: string) => readFileSync(join(root, path), "utf8");
const pages = [
  "README.md",
  "CONTRIBUTING.md",
  ...readdirSync(join(root, "docs"))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
];

/** Parses a command line without running it. @returns what it prints */
async function parse(argv: readonly string[]): Promise<string> {
  let text = "";
  const write = (part: string) => {
    text += part;
  };
  const output = { out: write, error: write, width: 100 };
  const program = await createProgram(commands, argv, "0.0.0", output, async () => {});
  try {
    await program.parseAsync(argv, { from: "user" });
  } catch (error) {
    if ((error as { code?: string }).code !== "commander.helpDisplayed") throw error;
  }
  return text;
}

/** Words of a shell line, with "quoted ones" whole. */
const words = (line: string) => Array.from(line.matchAll(/"([^"]*)"|(\S+)/g), ([, quoted, plain]) => quoted ?? plain);

test("docs/cli.md is what --help prints; `vitest run test/docs.test.ts -u` refreshes it", async () => {
  const sections = [`# Command line\n\n\`\`\`\n${await parse(["--help"])}\`\`\`\n`];
  for (const { name } of commands) {
    // The number of cores is no part of the documentation.
    const help = await parse([name, "--help"]);
    sections.push(`## ${name}\n\n\`\`\`\n${help}\`\`\`\n`);
  }
  await expect(sections.join("\n")).toMatchFileSnapshot("../docs/cli.md");
});

const definitions = await Promise.all(commands.map(async ({ load }) => (await load()).command));
const examples = definitions.flatMap(({ examples }) => examples);
const names = commands.map(({ name }) => name).join("|");
const commandLine = new RegExp(`^ *(?:\\$ )?(?:npx )?(rarefy (?:${names}) .+?)(?: {2,}.*| +#.*)?$`, "gm");
const documented = pages
  .flatMap((page) => Array.from(read(page).matchAll(commandLine), ([, line]) => line))
  .filter((line) => !line.includes("[options]"));

test("command lines are found in the pages", () => {
  expect(documented.length).toBeGreaterThan(10);
});

test.each([...new Set([...examples, ...documented])])("parses: %s", async (line) => {
  // A variable may be set for the command.
  const [program, ...argv] = words(line.replace(/^(?:[A-Z_]+=\S+ )+/, ""));
  expect(program).toBe("rarefy");
  await parse(argv);
});

test.each([
  ["README.md", "examples/sparse.mjs"],
  ["docs/programs.md", "examples/prune.mjs"],
  ["docs/programs.md", "examples/finetune.mjs"],
])("%s shows %s", (page, example) => {
  expect(read(page)).toContain(`\`\`\`js\n${read(example)}\`\`\``);
});

test("the example of the README runs", async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ["examples/sparse.mjs"], { cwd: root });
  expect(stdout).toMatch(/[a-z]{3}[\s\S]*\n(3[5-9]|4[0-5]) % of the inputs were skipped\n$/);
});

test("the examples that prune and train what is left run", async () => {
  const cwd = mkdtempSync(join(tmpdir(), "rarefy-examples-"));
  const example = async (name: string, ...argv: string[]) =>
    (await promisify(execFile)(process.execPath, [join(root, "examples", name), ...argv], { cwd })).stdout;
  try {
    expect(await example("prune.mjs")).toMatch(/^\nperplexity 48\.3\d before, 69\.\d\d after\n$/);
    expect(await example("finetune.mjs", "pruned", join(root, "docs/limits.md"), "2")).toMatch(/loss \d.*, 50 % zeros/);
    expect(readdirSync(cwd)).toEqual(["pruned", "recovered"]);
  } finally {
    rmSync(cwd, { recursive: true });
  }
});

test("docs/programs.md names functions that are there", async () => {
  const rows = [...read("docs/programs.md").matchAll(/^\|[^|]+\|([^|]+)\|\s*`(rarefy[\w/]*)`\s*\|$/gm)];
  expect(rows.length).toBeGreaterThan(10);
  for (const [, names, module] of rows) {
    const exported: Record<string, unknown> = await import(module);
    for (const [, name] of names.matchAll(/`(\w+)`/g))
      expect(exported[name], `${name} of ${module}`).toBeTypeOf("function");
  }
});

test.each(pages)("%s links to files that are there", (page) => {
  for (const [, target] of read(page).matchAll(/\]\((?!https?:|#)([^)#]+)/g)) {
    expect(existsSync(join(root, dirname(page), target)), target).toBe(true);
  }
});

test("docs/path.md names folders and files of src that are there", () => {
  const rows = read("docs/path.md")
    .split("## Where a change goes")[1]
    .split("\n## ")[0]
    .matchAll(/^\|[^|]+\|([^|]+)\|$/gm);
  const named = Array.from(rows, ([, places]) =>
    [...places.matchAll(/`([\w./-]+)`/g)].map(([, place]) => place),
  ).flat();
  expect(named.length).toBeGreaterThan(20);
  expect(named.filter((place) => !existsSync(join(root, place.startsWith("test/") ? "" : "src", place)))).toEqual([]);
});

test.each(pages)("%s names files that are there", (page) => {
  const named = Array.from(read(page).matchAll(/`((?:src|test|docs|scripts|models)\/[\w./-]+)`/g), ([, path]) => path);
  expect(named.filter((path) => !existsSync(join(root, path)))).toEqual([]);
});

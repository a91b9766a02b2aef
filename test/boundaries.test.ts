import { readdirSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { describe, expect, test } from "vitest";

/** The data path from left to right. A folder imports only from folders to its left. */
const order = [
  "core",
  "tensor",
  "arch",
  "io",
  "text",
  "pack",
  "compress",
  "kernels",
  "model",
  "runtime",
  "pipeline",
  "eval",
  "tasks",
  "report",
  "train",
  "jobs",
  "server",
  "ai-sdk",
  "cli",
];

/** Arrows that the order would allow and the design does not: only `pipeline` joins models and compression. */
const forbidden: Readonly<Record<string, readonly string[]>> = {
  kernels: ["compress"],
  model: ["compress"],
  runtime: ["compress"],
};

/** Folders that only ever run in Node. */
const nodeFolders = ["jobs", "cli", "server"];

const maxLines = 500;

interface SourceFile {
  /** Path under src/ with forward slashes: "io/safetensors.ts". */
  path: string;
  text: string;
}

const root = fileURLToPath(new URL("../src", import.meta.url));
const filesUnder = (folder: string, extension: string): SourceFile[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(extension))
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !path.includes("node_modules"))
    .map((path) => ({ path: relative(folder, path).split(sep).join("/"), text: readFileSync(path, "utf8") }));

/** AssemblyScript is another language: its imports have no endings. */
const isAssembly = ({ path }: SourceFile) => path.includes("wasm/assembly/");
const everySource = filesUnder(root, ".ts");
const sources = everySource.filter((file) => !isAssembly(file));

/** What is wrong with the imports of one file, in words. Static, dynamic, type and re-exporting imports all count. */
function importProblems({ path, text }: SourceFile): string[] {
  const folder = path.includes("/") ? path.split("/")[0] : undefined;
  const isTest = path.endsWith(".test.ts");
  const problems: string[] = [];
  if (folder !== undefined && !order.includes(folder)) problems.push(`${path}: folder ${folder} is not in the order`);

  for (const { fileName: specifier } of ts.preProcessFile(text).importedFiles) {
    const blame = (problem: string) => problems.push(`${path} imports "${specifier}": ${problem}`);
    if (!specifier.startsWith(".")) {
      const nodeFile = isTest || path.endsWith(".node.ts") || (folder !== undefined && nodeFolders.includes(folder));
      if (specifier.startsWith("node:") && !nodeFile) blame("node: modules only in *.node.ts and in Node folders");
      continue;
    }
    const target = new URL(specifier, `file:///src/${path}`).pathname.slice("/src/".length);
    const targetFolder = target.split("/")[0];
    if (!specifier.endsWith(".js") && !specifier.endsWith(".json")) blame("relative imports end in .js");
    if (targetFolder === folder) continue;
    if (folder !== undefined && order.indexOf(targetFolder) >= order.indexOf(folder))
      blame(`${folder} may import only from folders left of it`);
    if (folder !== undefined && forbidden[folder]?.includes(targetFolder))
      blame(`${folder} never imports ${targetFolder}; pipeline joins them`);
    const doors = ["index.js", "index.node.js", "internal.js", "internal.node.js"].map(
      (door) => `${targetFolder}/${door}`,
    );
    if (!isTest && !doors.includes(target)) blame("another folder is imported through its index.js or internal.js");
  }
  return problems;
}

describe("import order", () => {
  test("every import in src/ follows the data path, through index.js, with node: only in Node files", () => {
    expect(sources.length).toBeGreaterThan(20);
    expect(sources.flatMap(importProblems)).toEqual([]);
  });

  test.each([
    ["pack/a.ts", 'import { x } from "../kernels/index.js";', "left of it"],
    ["kernels/a.ts", 'import type { x } from "../compress/index.js";', "pipeline joins them"],
    ["model/a.ts", 'export * from "../io/checkpoint.js";', "through its index.js"],
    ["io/a.ts", 'const fs = await import("node:fs");', "node: modules only"],
    ["io/a.ts", 'import { b } from "./b";', "end in .js"],
    ["extras/a.ts", "", "not in the order"],
  ])("the rule catches %s with %s", (path, text, problem) => {
    expect(importProblems({ path, text })).toEqual([expect.stringContaining(problem)]);
  });
});

describe("doors", () => {
  const namesOf = (path: string) => {
    const text = sources.find((file) => file.path === path)?.text ?? "";
    const lists = Array.from(text.matchAll(/^export (?:type )?\{([^}]*)\} from/gm), ([, list]) => list.split(","));
    return lists.flat().map((name) => name.trim().replace(/^type /, ""));
  };
  const inner = sources.map(({ path }) => path).filter((path) => /^\w+\/internal\.ts$/.test(path));

  test("every folder that others import has a public one", () => {
    const folders = order.filter(
      (folder) => folder !== "cli" && sources.some(({ path }) => path.startsWith(`${folder}/`)),
    );
    expect(folders.filter((folder) => !sources.some(({ path }) => path === `${folder}/index.ts`))).toEqual([]);
  });

  test.each(inner)("%s says whom it is for, and shows nothing that is public", (path) => {
    expect(sources.find((file) => file.path === path)!.text).toMatch(
      /^\/\*\* For the .* Not part of the package's exports\. \*\//,
    );
    const open = namesOf(path.replace("internal.ts", "index.ts"));
    expect(namesOf(path).filter((name) => name !== "" && open.includes(name))).toEqual([]);
  });
});

/** Packages that are large or that not every host can load; they are imported where they are used, and only then. */
const heavyPackages = ["@jax-js/jax", "@mlc-ai/web-xgrammar", "hyparquet", "re2js", "xz-decompress", "yaml", "webgpu"];

/** What each file imports as soon as it is loaded itself: all but types and `import()`. */
const loadedBy = new Map(
  sources.map(({ path, text }) => {
    const { statements } = ts.createSourceFile(path, text, ts.ScriptTarget.ESNext);
    const loads = (statement: ts.Statement) =>
      (ts.isImportDeclaration(statement) && statement.importClause?.isTypeOnly !== true) ||
      (ts.isExportDeclaration(statement) && !statement.isTypeOnly);
    const specifiers = (statements.filter(loads) as unknown as (ts.ImportDeclaration | ts.ExportDeclaration)[])
      .map(({ moduleSpecifier }) => moduleSpecifier)
      .filter((specifier) => specifier !== undefined && ts.isStringLiteral(specifier));
    return [path, specifiers.map(({ text }) => text)] as const;
  }),
);

/** Packages that a file loads as soon as it is imported, each with the file that does so. */
function packagesLoadedBy(entry: string): Map<string, string> {
  const packages = new Map<string, string>();
  const seen = new Set([entry]);
  for (const path of seen)
    for (const specifier of loadedBy.get(path) ?? []) {
      if (specifier.startsWith("."))
        seen.add(new URL(specifier.replace(/\.js$/, ".ts"), `file:///${path}`).pathname.slice(1));
      else packages.set(specifier, path);
    }
  return packages;
}

describe("heavy packages are loaded only where they are used", () => {
  const entries = sources.map(({ path }) => path).filter((path) => /^(\w+\/)?index(\.node)?\.ts$/.test(path));
  const commands = sources.map(({ path }) => path).filter((path) => /^cli\/commands\/\w+\.ts$/.test(path));
  test.each([...entries, "cli/main.ts", ...commands])("not by importing %s", (entry) => {
    const packages = packagesLoadedBy(entry);
    expect(
      heavyPackages.filter((name) => packages.has(name)).map((name) => `${name} by ${packages.get(name)}`),
    ).toEqual([]);
  });

  test("the command line loads the server's packages when it serves, and not before", () => {
    expect([...packagesLoadedBy("server/index.ts").keys()]).toEqual(
      expect.arrayContaining(["hono", "@hono/node-server"]),
    );
    const packages = packagesLoadedBy("cli/main.ts");
    expect(["hono", "hono/cors", "@hono/node-server"].filter((name) => packages.has(name))).toEqual([]);
  });

  test("the search finds what is imported far away", () => {
    expect([...packagesLoadedBy("cli/commands/run.ts").keys()]).toEqual(
      expect.arrayContaining(["commander", "@huggingface/tokenizers"]),
    );
  });

  test("the command line begins with its parser and the list of commands alone", () => {
    expect([...packagesLoadedBy("cli/main.ts").keys()].sort()).toEqual(["commander", "node:fs", "node:util"]);
  });
});

/** Groups of files of which each imports the next and the last the first. Imports of types count. */
function circles(files: readonly SourceFile[]): string[][] {
  const imports = new Map<string, string[]>();
  const paths = new Set(files.map(({ path }) => path));
  for (const file of files) {
    const targets = ts
      .preProcessFile(file.text)
      .importedFiles.filter(({ fileName }) => fileName.startsWith("."))
      .map(({ fileName }) => (isAssembly(file) ? `${fileName}.ts` : fileName.replace(/\.js$/, ".ts")))
      .map((fileName) => new URL(fileName, `file:///${file.path}`).pathname.slice(1));
    imports.set(
      file.path,
      targets.filter((target) => paths.has(target)),
    );
  }
  /** Everything that can be reached from a file. */
  const reached = new Map<string, Set<string>>();
  for (const path of paths) {
    const seen = new Set<string>();
    const open = [path];
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      for (const target of imports.get(next)!) {
        if (seen.has(target)) continue;
        seen.add(target);
        open.push(target);
      }
    }
    reached.set(path, seen);
  }
  const found = new Map<string, string[]>();
  for (const path of paths) {
    if (!reached.get(path)!.has(path)) continue;
    const members = [...paths].filter((other) => reached.get(path)!.has(other) && reached.get(other)!.has(path));
    found.set(members.join(), members);
  }
  return [...found.values()];
}

describe("import circles", () => {
  test("there are none in src/, types included", () => {
    expect(circles(everySource)).toEqual([]);
  });

  test("one is found over three files, whether of types or loaded late", () => {
    const files = [
      { path: "io/a.ts", text: 'import type { B } from "./b.js";' },
      { path: "io/b.ts", text: 'const c = () => import("../core/c.js");' },
      { path: "core/c.ts", text: 'export { a } from "../io/a.js";' },
      { path: "core/d.ts", text: 'import { a } from "../io/a.js";' },
    ];
    expect(circles(files)).toEqual([["io/a.ts", "io/b.ts", "core/c.ts"]]);
  });
});

test("of zod only the functions of zod/mini are imported: its classes are 15 kB more of a page, its object `z` all of it", () => {
  const whole = sources.filter(({ text }) =>
    /^import (?!type).* from "zod"|^import .*[{ ]z\b.*\} from "zod/m.test(text),
  );
  expect(whole.map(({ path }) => path)).toEqual([]);
});

test(`no source file is longer than ${maxLines} lines`, () => {
  const inFolder = (name: string) =>
    filesUnder(fileURLToPath(new URL(`../${name}`, import.meta.url)), ".mjs").map((file) => ({
      ...file,
      path: `${name}/${file.path}`,
    }));
  const files = [...everySource, ...inFolder("bench"), ...inFolder("scripts")];
  const long = files.filter(({ text }) => text.split("\n").length - 1 > maxLines).map(({ path }) => path);
  expect(long.filter((path) => !path.includes("/generated/"))).toEqual([]);
});

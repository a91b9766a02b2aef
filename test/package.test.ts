import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import ts from "typescript";
import { build, createLogger } from "vite";
import { beforeAll, expect, test } from "vitest";
import { ensureInstalled, installed, node, root } from "./support/rarefy.js";

/** The package as it is packed, seen from an empty folder in which it is installed. */

beforeAll(ensureInstalled);

const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const dist = join(root, "dist");
const built = readdirSync(dist, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".js"));

/** "./io/node" → "rarefy/io/node" */
const entryPoints = Object.entries(manifest.exports as Record<string, unknown>)
  .filter(([, target]) => typeof target === "object")
  .map(([path]) => path.replace(/^\./, "rarefy"));

/** Runs a module in the empty folder. @returns what it prints */
const inNode = (program: string) =>
  execFileSync(node, ["--input-type=module", "-e", program], { cwd: installed, encoding: "utf8" });

test("every import path loads in plain Node.js", () => {
  const program = `for (const path of ${JSON.stringify(entryPoints)})
    if (Object.keys(await import(path)).length === 0) throw new Error(path);
  console.log("loaded");`;
  expect(inNode(program)).toBe("loaded\n");
});

test.skipIf(!["linux-x64", "linux-arm64"].includes(`${process.platform}-${process.arch}`))(
  "native kernels come with the package, and need no compiler",
  () => {
    const program = `const { openBackend } = await import("rarefy/kernels");
    const backend = await openBackend("wasm", { threads: 1 });
    console.log(backend.info.description);`;
    const env = { PATH: "" };
    const said = execFileSync(node, ["--input-type=module", "-e", program], { cwd: installed, encoding: "utf8", env });
    expect(said).toMatch(/native (AVX2|AVX-VNNI|AVX-512|AVX-512 with AMX|NEON[^,]*) kernels|this processor lacks AVX2/);
  },
);

/** Names that a built file takes from packages, by `import { a } from` and by `const { a } = await import()`. */
function namesTaken(path: string): [name: string, from: string][] {
  const file = ts.createSourceFile(path, readFileSync(join(dist, path), "utf8"), ts.ScriptTarget.ESNext);
  const taken: [string, string][] = [];
  const visit = (part: ts.Node): void => {
    if (ts.isImportDeclaration(part) && ts.isStringLiteral(part.moduleSpecifier)) {
      const bindings = part.importClause?.namedBindings;
      if (part.importClause?.name !== undefined) taken.push(["default", part.moduleSpecifier.text]);
      if (bindings !== undefined && ts.isNamedImports(bindings))
        for (const { name, propertyName } of bindings.elements)
          taken.push([(propertyName ?? name).text, part.moduleSpecifier.text]);
    }
    if (
      ts.isVariableDeclaration(part) &&
      ts.isObjectBindingPattern(part.name) &&
      part.initializer !== undefined &&
      ts.isAwaitExpression(part.initializer) &&
      ts.isCallExpression(part.initializer.expression) &&
      part.initializer.expression.expression.kind === ts.SyntaxKind.ImportKeyword
    ) {
      const [from] = part.initializer.expression.arguments;
      for (const { name, propertyName } of part.name.elements)
        if (ts.isStringLiteral(from)) taken.push([((propertyName ?? name) as ts.Identifier).text, from.text]);
    }
    ts.forEachChild(part, visit);
  };
  visit(file);
  return taken.filter(([, from]) => !from.startsWith(".") && !from.startsWith("node:"));
}

test("every name that is imported from a package is one that Node.js finds there", () => {
  const taken = built.flatMap(namesTaken);
  expect(taken).toEqual(expect.arrayContaining([["parseDocument", "yaml"]]));
  const program = `const missing = [];
  for (const [name, from] of ${JSON.stringify(taken)})
    if (!(name in (await import(from)))) missing.push(name + " of " + from);
  console.log(JSON.stringify(missing));`;
  expect(JSON.parse(inNode(program))).toEqual([]);
});

/** Compiles a program in the empty folder without its dependencies' errors being left out. @returns its errors */
function compile(text: string, options: ts.CompilerOptions): string[] {
  const path = join(installed, "program.ts");
  writeFileSync(path, text);
  const program = ts.createProgram([path], {
    strict: true,
    skipLibCheck: false,
    noEmit: true,
    target: ts.ScriptTarget.ES2022,
    types: [],
    ...options,
  });
  return ts
    .getPreEmitDiagnostics(program)
    .map(({ file, messageText }) => `${file?.fileName ?? ""}: ${ts.flattenDiagnosticMessageText(messageText, "\n")}`);
}

// The declarations of the AI SDK want those of Node.js.
const forBrowsers = entryPoints.filter((path) => !path.endsWith("/node") && path !== "rarefy/ai-sdk");
const resolution = { module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext };

test("a strict project for browsers compiles against all of it, declarations of the package included", () => {
  const imports = forBrowsers.map((path, i) => `import * as m${i} from "${path}";\nvoid m${i};`);
  writeFileSync(join(installed, "package.json"), '{ "type": "module" }');
  const use = `import { generateText, openModel } from "rarefy";
  import { urlFiles } from "rarefy/io";
  const opened = await openModel(urlFiles("https://example.org/"));
  void generateText;
  opened[Symbol.dispose]();
  export {};`;
  const lib = ["lib.es2022.d.ts", "lib.dom.d.ts"];
  expect(compile([...imports, use].join("\n"), { ...resolution, lib })).toEqual([]);
});

test("a strict project for Node.js compiles against all of it without the types of the DOM", () => {
  const use = entryPoints
    .filter((path) => path !== "rarefy/ai-sdk")
    .map((path, i) => `import * as m${i} from "${path}";\nvoid m${i};`);
  const own = {
    lib: ["lib.es2023.d.ts", "lib.esnext.disposable.d.ts"],
    types: ["node"],
    typeRoots: [join(root, "node_modules/@types")],
  };
  expect(compile(use.join("\n"), { ...resolution, ...own })).toEqual([]);
});

const packed = join(installed, "node_modules/rarefy");

test("links of the pages in the package lead to files in the package", () => {
  const pages = readdirSync(packed, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".md"));
  expect(pages).toEqual(expect.arrayContaining(["README.md", join("docs", "cli.md")]));
  const links = pages.flatMap((page) =>
    Array.from(readFileSync(join(packed, page), "utf8").matchAll(/\]\((?!https?:|#)([^)#]+)/g), ([, target]) => ({
      page,
      target,
    })),
  );
  expect(links.filter(({ page, target }) => !existsSync(join(packed, dirname(page), target)))).toEqual([]);
});

/** A page as docs/browser.md describes it. */
const page = `
  import { generateText, loadTokenizer, openModel } from "rarefy";
  import { urlFiles } from "rarefy/io";
  const files = urlFiles(new URL("model/", location.href).href);
  globalThis.ready = Promise.all([openModel(files), loadTokenizer(files), generateText]);`;

/**
 * JavaScript of a page, gzipped: what is loaded at once, and all of it with both backends. The former has grown by layers that share their
 * weights, caches in pages and the layers of Terraformer, the latter by what is loaded where a model asks for it: experts read from a file, and one more
 * format of quantised checkpoints, heads made of morphemes, pruned contexts, rows of single neurons in q8 and q4, gates
 * in front of layers, attention on the matrix units of a GPU and by its subgroups.
 */
const ceilings = { firstBytes: 122_000, allBytes: 320_000 };

test("a bundler builds a page without a word about Node.js, and the page is small", async () => {
  const folder = join(installed, "page");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "main.js"), page);
  writeFileSync(join(folder, "index.html"), '<script type="module" src="main.js"></script>');
  const said: string[] = [];
  const logger = createLogger("warn");
  logger.warn = (message) => void said.push(message);
  const built = await build({
    root: folder,
    configFile: false,
    customLogger: logger,
    build: { target: "es2022", outDir: "out", chunkSizeWarningLimit: 2000, modulePreload: false },
  });
  expect(said).toEqual([]);
  if (!("output" in built)) throw new Error("not one build");
  const chunks = built.output.filter((part) => part.type === "chunk");
  const outside = chunks.flatMap(({ imports, dynamicImports }) => [...imports, ...dynamicImports]);
  expect(outside.filter((name) => name.startsWith("node:"))).toEqual([]);
  const byName = new Map(chunks.map((chunk) => [chunk.fileName, chunk]));
  const first = new Set(chunks.filter(({ isEntry }) => isEntry).map(({ fileName }) => fileName));
  for (const name of first) for (const next of byName.get(name)!.imports) first.add(next);
  const bytes = (names: Iterable<string>) =>
    Array.from(names, (name) => gzipSync(byName.get(name)!.code).length).reduce((sum, length) => sum + length, 0);
  const sizes = { firstBytes: bytes(first), allBytes: bytes(byName.keys()) };
  expect(sizes.firstBytes).toBeLessThan(ceilings.firstBytes);
  expect(sizes.allBytes).toBeLessThan(ceilings.allBytes);
});

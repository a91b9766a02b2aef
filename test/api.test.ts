import { readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";
import { beforeAll, describe, expect, test } from "vitest";
import { root } from "./support/rarefy.js";

/**
 * The public names of every import path, in `test/api/`: a name that comes, goes or becomes something else shows in review.
 * `npx vitest run test/api.test.ts -u` writes them anew.
 */

const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

/** "./io/node" → source of its index */
const entryPoints = Object.entries(manifest.exports as Record<string, { types: string } | string>).flatMap(
  ([path, target]): [string, string][] =>
    typeof target === "object"
      ? [[path, join(root, target.types.replace("./dist/", "src/").replace(/\.d\.ts$/, ".ts"))]]
      : [],
);

const kinds: readonly [ts.SymbolFlags, string][] = [
  [ts.SymbolFlags.Class, "class"],
  [ts.SymbolFlags.Function, "function"],
  [ts.SymbolFlags.Variable, "const"],
  [ts.SymbolFlags.Interface, "interface"],
  [ts.SymbolFlags.TypeAlias, "type"],
];

let checker: ts.TypeChecker;
let program: ts.Program;
beforeAll(() => {
  const { config } = ts.readConfigFile(join(root, "tsconfig.json"), ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root);
  program = ts.createProgram(
    entryPoints.map(([, source]) => source),
    options,
  );
  checker = program.getTypeChecker();
});

/** Public names of an import path with what they stand for, by name. */
function namesOf(source: string): [string, ts.Symbol][] {
  const module = checker.getSymbolAtLocation(program.getSourceFile(source)!)!;
  return checker
    .getExportsOfModule(module)
    .map((symbol): [string, ts.Symbol] => [
      symbol.name,
      symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol,
    ])
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
}

describe.each(entryPoints)("%s", (path, source) => {
  test("has the names that were agreed on", async () => {
    const names = namesOf(source);
    expect(names.length).toBeGreaterThan(0);
    const lines = names.map(([name, { flags }]) => `${kinds.find(([kind]) => (flags & kind) !== 0)?.[1]} ${name}\n`);
    const file = path === "." ? "main" : path.slice(2).replace("/", ".");
    await expect(lines.join("")).toMatchFileSnapshot(`api/${file}.txt`);
  });

  test("every name is described where it is declared", () => {
    const silent = namesOf(source).filter(
      ([, symbol]) => symbol.getDocumentationComment(checker).length === 0 && symbol.getJsDocTags(checker).length === 0,
    );
    expect(silent.map(([name]) => name)).toEqual([]);
  });
});

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { sep } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = new URL("../", import.meta.url);
const manifest = JSON.parse(readFileSync(new URL("package.json", root), "utf8")) as {
  exports: Record<string, { types: string; default: string } | string>;
  bin: Record<string, string>;
};

/** Folders of src/ that are part of the library: all but the command line. */
const folders = readdirSync(new URL("src", root), { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && entry.name !== "cli")
  .map((entry) => entry.name);
const entryPoints = Object.entries(manifest.exports).filter(([, target]) => typeof target === "object") as [
  string,
  { types: string; default: string },
][];

/** "./io" → "io/index", "./io/node" → "io/index.node": the parts of a folder that need Node.js. */
const indexOf = (path: string) => {
  const [, folder, node] = path.split("/");
  return `${folder === undefined ? "" : `${folder}/`}index${node === undefined ? "" : `.${node}`}`;
};

test("every library folder is an import path of the package and the reverse", () => {
  const exported = entryPoints.map(([path]) => path).filter((path) => path !== "." && !path.endsWith("/node"));
  expect(exported.toSorted()).toEqual(folders.map((folder) => `./${folder}`).toSorted());
});

test.each(entryPoints)("%s points at the built index of its folder, which imports cleanly", async (path, target) => {
  const index = indexOf(path);
  expect(target).toEqual({ types: `./dist/${index}.d.ts`, default: `./dist/${index}.js` });
  const source = new URL(`src/${index}.ts`, root);
  expect(existsSync(source), `src/${index}.ts`).toBe(true);
  const module = (await import(fileURLToPath(source))) as object;
  expect(Object.keys(module).length).toBeGreaterThan(0);
});

test("every index.node.ts is an import path", () => {
  const found = readdirSync(new URL("src", root), { recursive: true }).filter((path) =>
    String(path).endsWith("index.node.ts"),
  );
  const expected = found.map((path) => `./${String(path).split(sep)[0]}/node`);
  expect(entryPoints.map(([path]) => path)).toEqual(expect.arrayContaining(expected));
});

test("the bin is a built file of src/cli", () => {
  for (const path of Object.values(manifest.bin)) {
    const source = path.replace("./dist/", "src/").replace(/\.js$/, ".ts");
    expect(readFileSync(new URL(source, root), "utf8")).toMatch(/^#!\/usr\/bin\/env node\n/);
  }
});

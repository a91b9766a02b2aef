import { readFile } from "node:fs/promises";
import { createRequire, Module } from "node:module";

export type XGrammar = typeof import("@mlc-ai/web-xgrammar");

/** The server has no library that holds answers to a form. */
export class NoGrammarError extends Error {}

let loaded: Promise<XGrammar> | undefined;

/**
 * The npm package @mlc-ai/web-xgrammar, once for the process. It says that it is an ES module and holds a script for browsers
 * and CommonJS, so that `import` finds nothing in it: its file is run as the CommonJS module that it is.
 * @throws NoGrammarError where it is not installed
 */
export function loadXGrammar(): Promise<XGrammar> {
  loaded ??= load().catch((cause: unknown) => {
    loaded = undefined;
    throw new NoGrammarError(
      "to hold answers to a schema the server needs the npm package @mlc-ai/web-xgrammar; install it beside rarefy",
      { cause },
    );
  });
  return loaded;
}

async function load(): Promise<XGrammar> {
  const require = createRequire(import.meta.url);
  const file = require.resolve("@mlc-ai/web-xgrammar");
  const module = new Module(file) as Module & { _compile(source: string, file: string): void; exports: XGrammar };
  module.filename = file;
  module._compile(await readFile(file, "utf8"), file);
  return module.exports;
}

import { readFile } from "node:fs/promises";
import { createRequire, Module } from "node:module";

export type XGrammar = typeof import("@mlc-ai/web-xgrammar");

/** The server has no library that holds answers to a form. */
export class NoGrammarError extends Error {}

/** An instance of the library with a memory of its own. */
export interface GrammarLibrary {
  readonly x: XGrammar;
  /** What it said last of something that it could not do, in its own words. */
  lastWords(): string;
}

/** What it prints before it gives up: the place in its sources, and what it looked at there. */
const place = /^\[FATAL\] \S+:\d+: (?:Check failed: \(.*?\) is (?:false|true): )?/;

/**
 * The npm package @mlc-ai/web-xgrammar, an instance of it. It says that it is an ES module and holds a script for browsers
 * and CommonJS, so that `import` finds nothing in it: its file is run as the CommonJS module that it is.
 * @throws NoGrammarError where it is not installed
 */
export async function loadXGrammar(): Promise<GrammarLibrary> {
  try {
    return await load();
  } catch (cause) {
    throw new NoGrammarError(
      "to hold answers to a schema the server needs the npm package @mlc-ai/web-xgrammar; install it beside rarefy",
      { cause },
    );
  }
}

async function load(): Promise<GrammarLibrary> {
  const require = createRequire(import.meta.url);
  const file = require.resolve("@mlc-ai/web-xgrammar");
  let said = "";
  // It prints to the console, the schemas of requests too; here it has a console that keeps the last line.
  const hear = (line: unknown) => {
    const text = String(line);
    if (!text.startsWith("Aborted(")) said = text.replace(place, "").slice(0, 300);
  };
  const heard = { log: hear, warn: hear, error: hear };
  const module = Object.assign(new Module(file), { heard }) as unknown as CompiledModule;
  module.filename = file;
  module._compile(`const console = module.heard; ${await readFile(file, "utf8")}`, file);
  return { x: module.exports, lastWords: () => said };
}

interface CompiledModule {
  filename: string;
  readonly exports: XGrammar;
  _compile(source: string, file: string): void;
}

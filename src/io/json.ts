import { FormatError } from "../core/index.js";
import type { ModelFiles } from "./byteSource.js";
import { refuseMistaken } from "./mistakenFile.js";
import { decodeUtf8, readWhole } from "./textFile.js";

/** How much a JSON text may hold. A limit on its bytes is none on what it expands to. */
export interface JsonLimits {
  /** Brackets inside of each other. */
  depth: number;
  /** Values and keys, about. */
  values: number;
}

/** Configs and indexes are far smaller: the index of 100,000 tensors has 200,000 values in 12 MB. */
const maxJsonBytes = 64 * 2 ** 20;
const jsonLimits: JsonLimits = { depth: 64, values: 1_000_000 };
/** The largest known tokenizer.json has 34 MB, and some 600,000 tokens and merges (Gemma 3), each merge three values. */
const tokenizerExtent = { maxBytes: 256 * 2 ** 20, values: 6_000_000 };
const largerFiles: Readonly<Partial<Record<string, typeof tokenizerExtent>>> = {
  "tokenizer.json": tokenizerExtent,
  "vocab.json": tokenizerExtent,
};

/**
 * Parses UTF-8 JSON and refuses duplicate keys, which `JSON.parse` would drop in silence. A byte order mark is skipped.
 * A key "__proto__" becomes an own property, as in `JSON.parse`: iterate with `Object.entries`, keep in a `Map`.
 * @throws FormatError, also for more values or deeper ones than `limits` allow
 */
export function parseJson(bytes: Uint8Array, file: string, limits: Partial<JsonLimits> = {}): unknown {
  checkExtent(bytes, file, { ...jsonLimits, ...limits });
  const text = decodeUtf8(bytes, file).replace(/^\ufeff/, "");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    refuseMistaken(bytes, file);
    throw new FormatError({ file, problem: `not JSON (${(cause as Error).message})` }, { cause });
  }
  const duplicate = findDuplicateKey(text);
  if (duplicate !== undefined) throw new FormatError({ file, field: duplicate, problem: "the key occurs twice" });
  return value;
}

/** Counts brackets, commas and colons outside of strings, before anything is allocated for them. */
function checkExtent(bytes: Uint8Array, file: string, limits: JsonLimits): void {
  let [depth, values] = [0, 0];
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (byte === 0x22) {
      for (i++; i < bytes.length && bytes[i] !== 0x22; i++) if (bytes[i] === 0x5c) i++;
    } else if (byte === 0x2c || byte === 0x3a) {
      values++;
    } else if (byte === 0x5b || byte === 0x7b) {
      values++;
      if (++depth > limits.depth) {
        throw new FormatError({
          file,
          problem: `JSON nested more than ${limits.depth} levels deep, at byte ${i}`,
          hint: "No file of a model is; it is damaged",
        });
      }
    } else if (byte === 0x5d || byte === 0x7d) depth--;
    if (values > limits.values) {
      throw new FormatError({ file, problem: `JSON of more than ${limits.values} values`, expected: "fewer" });
    }
  }
}

/** The first key that one object of a valid JSON text has twice. */
function findDuplicateKey(text: string): string | undefined {
  // One entry per open bracket: the keys so far of an object, undefined for an array.
  const open: (Set<string> | undefined)[] = [];
  let string = "";
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (char === 0x22) {
      const start = i;
      for (i++; text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++;
      string = text.slice(start, i + 1);
    } else if (char === 0x7b) {
      open.push(new Set());
    } else if (char === 0x5b) {
      open.push(undefined);
    } else if (char === 0x7d || char === 0x5d) {
      open.pop();
    } else if (char === 0x3a) {
      // The same key may be spelt with and without escapes.
      const key: string = string.includes("\\") ? JSON.parse(string) : string.slice(1, -1);
      const keys = open[open.length - 1]!;
      if (keys.has(key)) return key;
      keys.add(key);
    }
  }
  return undefined;
}

/**
 * Reads a JSON file of a model. Those that hold vocabularies may be larger than others.
 * @returns undefined when there is none
 * @throws FormatError, also for a file above `maxBytes`
 */
export async function readJsonFile(files: ModelFiles, name: string, maxBytes?: number): Promise<unknown | undefined> {
  const source = await files.open(name);
  if (source === undefined) return undefined;
  const extent = largerFiles[name] ?? { maxBytes: maxJsonBytes, values: jsonLimits.values };
  return parseJson(await readWhole(source, maxBytes ?? extent.maxBytes), source.name, { values: extent.values });
}

/** A JSON object, not an array, not null. */
export function isJsonObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** JSON as files of a model have it: indented, a line end behind it. */
export const jsonBytes = (value: unknown): Uint8Array<ArrayBuffer> =>
  new TextEncoder().encode(`${JSON.stringify(value, undefined, 2)}\n`);

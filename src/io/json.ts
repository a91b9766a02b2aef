import { FormatError } from "../core/index.js";
import type { ByteSource, ModelFiles } from "./byteSource.js";
import { decodeUtf8 } from "./textFile.js";

/** No JSON file of a model is larger; the largest known tokenizer.json has 34 MB. */
const maxJsonBytes = 256 * 2 ** 20;

/**
 * Parses strict UTF-8 JSON and refuses duplicate keys, which `JSON.parse` would drop in silence.
 * A key "__proto__" becomes an own property, as in `JSON.parse`: iterate with `Object.entries`, keep in a `Map`.
 * @throws FormatError
 */
export function parseJson(bytes: Uint8Array, file: string): unknown {
  const text = decodeUtf8(bytes, file);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FormatError({ file, problem: `not JSON (${(cause as Error).message})` }, { cause });
  }
  const duplicate = findDuplicateKey(text);
  if (duplicate !== undefined) throw new FormatError({ file, field: duplicate, problem: "the key occurs twice" });
  return value;
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

/** Reads and parses a whole JSON source of bounded size. */
export async function readJsonSource(source: ByteSource, maxBytes = maxJsonBytes): Promise<unknown> {
  if (source.byteLength > maxBytes) {
    throw new FormatError({
      file: source.name,
      problem: `${source.byteLength} bytes of JSON`,
      expected: `at most ${maxBytes}`,
    });
  }
  return parseJson(await source.read(0, source.byteLength), source.name);
}

/** Reads a JSON file of a model. @returns undefined when there is none. @throws FormatError */
export async function readJsonFile(files: ModelFiles, name: string): Promise<unknown | undefined> {
  const source = await files.open(name);
  if (source === undefined) return undefined;
  try {
    return await readJsonSource(source);
  } finally {
    await source.close();
  }
}

/** A JSON object, not an array, not null. */
export function isJsonObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

import { Float, isDict, isList, repr, TemplateError, typeName, Undefined, type Value } from "./values.js";

export interface JsonOptions {
  /** Spaces of a level, or the text that stands for one; undefined keeps everything in one line. */
  indent?: string;
  separators: readonly [item: string, key: string];
  sortKeys: boolean;
  ensureAscii: boolean;
}

const maxDepth = 64;

/** Python's `json.dumps`, which the filter `tojson` of transformers calls. @throws TemplateError for what is no JSON */
export function dumps(value: Value, options: JsonOptions, depth = 0): string {
  if (depth > maxDepth) throw new TemplateError("a value is nested too deep for JSON");
  if (value === null) return "null";
  if (typeof value === "boolean" || typeof value === "number") return String(value);
  if (value instanceof Float) {
    return Number.isFinite(value.value)
      ? repr(value)
      : { inf: "Infinity", "-inf": "-Infinity", nan: "NaN" }[repr(value)]!;
  }
  if (typeof value === "string") return quoted(value, options);
  if (isList(value)) {
    return wrap(
      "[",
      "]",
      value.map((item) => dumps(item, options, depth + 1)),
      options,
      depth,
    );
  }
  if (isDict(value)) {
    const entries = Array.from(value, ([key, item]) => [keyText(key), item] as const);
    if (options.sortKeys) entries.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    const parts = entries.map(
      ([key, item]) => quoted(key, options) + options.separators[1] + dumps(item, options, depth + 1),
    );
    return wrap("{", "}", parts, options, depth);
  }
  throw new TemplateError(
    value instanceof Undefined ? `${value.name} is not there` : `a ${typeName(value)} is no JSON`,
  );
}

function keyText(key: Value): string {
  if (typeof key === "string") return key;
  if (key === null) return "null";
  return typeof key === "boolean" ? String(key) : repr(key);
}

function wrap(
  open: string,
  close: string,
  parts: readonly string[],
  { indent, separators }: JsonOptions,
  depth: number,
) {
  if (parts.length === 0) return open + close;
  if (indent === undefined) return open + parts.join(separators[0]) + close;
  const line = (level: number) => `\n${indent.repeat(level)}`;
  return open + line(depth + 1) + parts.join(separators[0] + line(depth + 1)) + line(depth) + close;
}

function quoted(text: string, { ensureAscii }: JsonOptions): string {
  const spelt = (c: string) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  const json = JSON.stringify(text);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: everything beyond ASCII is meant.
  return ensureAscii ? json.replace(/[^\u0000-\u007f]/g, spelt) : json;
}

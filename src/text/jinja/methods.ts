import { Given } from "./arguments.js";
import {
  type Arguments,
  Callable,
  charactersOf,
  type Dict,
  equal,
  isDict,
  isList,
  isPlain,
  itemsOf,
  lengthOf,
  TemplateError,
  Tuple,
  tupleOf,
  type Value,
} from "./values.js";
import { maxItems, type Work } from "./work.js";

/** A method: the names of its arguments, and what it does. */
type Method<Of> = readonly [names: readonly string[], run: (of: Of, given: Given, work: Work) => Value];

/** What `strip` takes away: blanks, or every character of a text. */
function stripped(text: string, characters: string | undefined, left: boolean, right: boolean): string {
  if (characters === undefined) return right ? (left ? text.trim() : text.trimEnd()) : text.trimStart();
  const taken = new Set(characters);
  let [from, to] = [0, text.length];
  const first = () => String.fromCodePoint(text.codePointAt(from)!);
  const last = () => (isPlain(text.slice(to - 1, to)) ? text[to - 1] : text.slice(to - 2, to));
  while (left && from < to && taken.has(first())) from += first().length;
  while (right && to > from && taken.has(last())) to -= last().length;
  return text.slice(from, to);
}

const strip =
  (left: boolean, right: boolean): Method<string>[1] =>
  (text, given) =>
    stripped(text, given.get("chars") == null ? undefined : given.text("chars"), left, right);

export const trim = (text: string, characters?: string): string => stripped(text, characters, true, true);

/** Words with a capital first letter, the others small, as Python's `title` has them. */
const titled = (text: string) =>
  text.replace(/\p{L}+/gu, (word) => {
    const [first, ...rest] = Array.from(word);
    return first.toUpperCase() + rest.join("").toLowerCase();
  });

export function capitalized(text: string): string {
  const first = text === "" ? "" : String.fromCodePoint(text.codePointAt(0)!);
  return first.toUpperCase() + text.slice(first.length).toLowerCase();
}

/** More than a list may have, so that a text with too many parts is refused without making them all. */
const maxParts = maxItems + 2;

function split(text: string, given: Given, fromRight: boolean): Value {
  const most = given.integer("maxsplit", -1);
  const separator = given.get("sep") == null ? undefined : given.text("sep");
  if (separator === "") throw new TemplateError("split at an empty text");
  if (separator === undefined) {
    const words = trim(text) === "" ? [] : trim(text).split(/\s+/u, maxParts);
    if (most < 0 || words.length <= most + 1) return words;
    if (fromRight) throw new TemplateError("rsplit at blanks with maxsplit is not supported");
    let rest = text.trimStart();
    const parts = words.slice(0, most);
    for (const word of parts) rest = rest.slice(word.length).trimStart();
    return [...parts, rest.trimEnd()];
  }
  const parts = text.split(separator, maxParts);
  if (most < 0 || parts.length <= most + 1) return parts;
  return fromRight
    ? [parts.slice(0, parts.length - most).join(separator), ...parts.slice(parts.length - most)]
    : [...parts.slice(0, most), parts.slice(most).join(separator)];
}

function partition(text: string, separator: string, at: number, missing: (text: string) => Tuple): Tuple {
  if (separator === "") throw new TemplateError("partition at an empty text");
  return at < 0 ? missing(text) : tupleOf(text.slice(0, at), separator, text.slice(at + separator.length));
}

/** The place of a part in characters, as `find` counts. */
const place = (text: string, at: number) => (at < 0 ? -1 : lengthOf(text.slice(0, at)));
const endings = (given: Given, name: string) => {
  const value = given.need(name);
  return value instanceof Tuple ? value.map(String) : [given.text(name)];
};
const padded = (text: string, given: Given, left: (room: number) => number, work: Work) => {
  const room = Math.max(0, given.integer("width") - lengthOf(text));
  work.room(room, "characters");
  const before = left(room);
  const fill = given.text("fillchar", " ");
  return fill.repeat(before) + text + fill.repeat(room - before);
};

export function replaced(text: string, given: Given, work: Work): string {
  const [from, to] = [given.printed("old"), given.printed("new")];
  const most = given.integerOrNone("count") ?? -1;
  work.spend(text.length);
  let found = 0;
  if (from === "") found = lengthOf(text) + 1;
  else for (let at = text.indexOf(from); at >= 0; at = text.indexOf(from, at + from.length)) found++;
  if (most >= 0) found = Math.min(found, most);
  work.room(text.length + found * to.length, "characters");
  const parts = from === "" ? ["", ...charactersOf(text), ""] : text.split(from);
  return parts.slice(0, found).join(to) + (found > 0 ? to : "") + parts.slice(found).join(from);
}

const every = (pattern: RegExp): Method<string> => [[], (text) => text !== "" && pattern.test(text)];

const ofText: Readonly<Record<string, Method<string>>> = {
  capitalize: [[], capitalized],
  center: [["width", "fillchar"], (text, given, work) => padded(text, given, (room) => Math.floor(room / 2), work)],
  count: [["sub"], (text, given) => text.split(given.text("sub")).length - 1],
  endswith: [["suffix"], (text, given) => endings(given, "suffix").some((end) => text.endsWith(end))],
  find: [["sub"], (text, given) => place(text, text.indexOf(given.text("sub")))],
  isalnum: every(/^[\p{L}\p{N}]+$/u),
  isalpha: every(/^\p{L}+$/u),
  isdigit: every(/^\p{Nd}+$/u),
  islower: [[], (text) => /\p{Ll}/u.test(text) && !/[\p{Lu}\p{Lt}]/u.test(text)],
  isnumeric: every(/^\p{N}+$/u),
  isspace: every(/^\s+$/u),
  isupper: [[], (text) => /\p{Lu}/u.test(text) && !/\p{Ll}/u.test(text)],
  join: [
    ["iterable"],
    (text, given, work) => {
      const parts = itemsOf(given.need("iterable"));
      if (!parts.every((part) => typeof part === "string")) throw new TemplateError("join of what is no text");
      work.room(
        parts.reduce<number>((sum, part) => sum + (part as string).length + text.length, 0),
        "characters",
      );
      return parts.join(text);
    },
  ],
  ljust: [["width", "fillchar"], (text, given, work) => padded(text, given, () => 0, work)],
  lower: [[], (text) => text.toLowerCase()],
  lstrip: [["chars"], strip(true, false)],
  partition: [
    ["sep"],
    (text, given) => partition(text, given.text("sep"), text.indexOf(given.text("sep")), (all) => tupleOf(all, "", "")),
  ],
  removeprefix: [
    ["prefix"],
    (text, given) => (text.startsWith(given.text("prefix")) ? text.slice(given.text("prefix").length) : text),
  ],
  removesuffix: [
    ["suffix"],
    (text, given) => {
      const suffix = given.text("suffix");
      return suffix !== "" && text.endsWith(suffix) ? text.slice(0, -suffix.length) : text;
    },
  ],
  replace: [["old", "new", "count"], replaced],
  rfind: [["sub"], (text, given) => place(text, text.lastIndexOf(given.text("sub")))],
  rjust: [["width", "fillchar"], (text, given, work) => padded(text, given, (room) => room, work)],
  rpartition: [
    ["sep"],
    (text, given) =>
      partition(text, given.text("sep"), text.lastIndexOf(given.text("sep")), (all) => tupleOf("", "", all)),
  ],
  rsplit: [["sep", "maxsplit"], (text, given) => split(text, given, true)],
  rstrip: [["chars"], strip(false, true)],
  split: [["sep", "maxsplit"], (text, given) => split(text, given, false)],
  splitlines: [
    ["keepends"],
    (text, given) =>
      given.boolean("keepends", false)
        ? (text.match(/[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+$/g) ?? [])
        : text === ""
          ? []
          : text.replace(/(?:\r\n|\n|\r)$/, "").split(/\r\n|\n|\r/),
  ],
  startswith: [["prefix"], (text, given) => endings(given, "prefix").some((begin) => text.startsWith(begin))],
  strip: [["chars"], strip(true, true)],
  swapcase: [[], (text) => text.replace(/\p{L}/gu, (c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase()))],
  title: [[], titled],
  upper: [[], (text) => text.toUpperCase()],
  zfill: [
    ["width"],
    (text, given, work) => {
      work.room(given.integer("width"), "characters");
      const [, sign, digits] = /^([+-]?)([\s\S]*)$/.exec(text)!;
      return sign + digits.padStart(given.integer("width") - sign.length, "0");
    },
  ],
};

const ofList: Readonly<Record<string, Method<readonly Value[]>>> = {
  count: [["value"], (list, given) => list.filter((item) => equal(item, given.need("value"))).length],
  index: [
    ["value"],
    (list, given) => {
      const at = list.findIndex((item) => equal(item, given.need("value")));
      if (at < 0) throw new TemplateError("index of a value that is not in the list");
      return at;
    },
  ],
};

const ofDict: Readonly<Record<string, Method<Dict>>> = {
  copy: [[], (dict) => new Map(dict)],
  get: [["key", "default"], (dict, given) => dict.get(given.need("key")) ?? given.get("default") ?? null],
  items: [[], (dict) => Array.from(dict, ([key, value]) => tupleOf(key, value))],
  keys: [[], (dict) => [...dict.keys()]],
  values: [[], (dict) => [...dict.values()]],
};

/** A method of a value, ready to be called; undefined when it has none of that name. */
export function methodOf(value: Value, name: string, work: Work): Callable | undefined {
  const bind = <Of extends Value>(methods: Readonly<Record<string, Method<Of>>>, of: Of): Callable | undefined => {
    if (!Object.hasOwn(methods, name)) return undefined;
    const [names, run] = methods[name];
    return new Callable(name, (given: Arguments) => {
      work.spend(typeof of === "string" ? of.length : isDict(of) ? of.size : (of as readonly Value[]).length);
      return work.made(run(of, new Given(name, given, names), work));
    });
  };
  if (typeof value === "string") return bind(ofText, value);
  if (isDict(value)) return bind(ofDict, value);
  return isList(value) ? bind(ofList, value) : undefined;
}

import { Given } from "./arguments.js";
import { dumps } from "./json.js";
import { capitalized, methodOf, replaced, trim } from "./methods.js";
import { binary, length } from "./operators.js";
import { test } from "./tests.js";
import {
  type Arguments,
  compare,
  type Dict,
  equal,
  Float,
  isDict,
  isList,
  isNumber,
  itemsOf,
  numberOf,
  TemplateError,
  type Tuple,
  toText,
  truthy,
  tupleOf,
  typeName,
  Undefined,
  type Value,
} from "./values.js";
import type { Work } from "./work.js";

/** What filters need of the interpreter. */
export interface FilterContext {
  work: Work;
  attribute(of: Value, name: string): Value;
}

/** A filter: the names of its arguments, and what it does. */
type Filter = readonly [names: readonly string[], run: (value: Value, given: Given, context: FilterContext) => Value];

/** `a.b.0` of an item, or the item itself without a name. */
function attributeOf(item: Value, path: Value | undefined, context: FilterContext): Value {
  if (path === undefined || path === null) return item;
  return toText(path)
    .split(".")
    .reduce((value, part) => {
      const list = isList(value) && /^\d+$/.test(part);
      return list ? (value[Number(part)] ?? new Undefined(part)) : context.attribute(value, part);
    }, item);
}

const caseless = (value: Value) => (typeof value === "string" ? value.toLowerCase() : value);

function sorted(items: readonly Value[], keyOf: (item: Value) => Value, reverse: boolean, work: Work): Value[] {
  work.spend(items.length * 16);
  const keyed = items.map((item) => ({ item, key: keyOf(item) }));
  keyed.sort((a, b) => (reverse ? compare(b.key, a.key) : compare(a.key, b.key)));
  return keyed.map(({ item }) => item);
}

/** The items for which a test, or their own truth, is `wanted`. */
const selecting =
  (wanted: boolean): Filter[1] =>
  (value, { given: { args } }, { work }) => {
    const [name, ...rest] = args;
    return itemsOf(value).filter((item) => {
      work.node();
      return (name === undefined ? truthy(item) : test(toText(name), item, rest, work)) === wanted;
    });
  };

const selectingBy =
  (wanted: boolean): Filter[1] =>
  (value, { given: { args } }, context) => {
    const [attribute, name, ...rest] = args;
    if (attribute === undefined) throw new TemplateError("selectattr needs the name of an attribute");
    return itemsOf(value).filter((item) => {
      context.work.node();
      const found = attributeOf(item, attribute, context);
      return (name === undefined ? truthy(found) : test(toText(name), found, rest, context.work)) === wanted;
    });
  };

const extreme =
  (sign: number): Filter[1] =>
  (value, given, context) => {
    const items = itemsOf(value);
    const key = (item: Value) => caseless(attributeOf(item, given.get("attribute"), context));
    if (items.length === 0) return new Undefined("the first of nothing");
    return items.reduce((best, item) => (sign * compare(key(item), key(best)) > 0 ? item : best));
  };

const length1: Filter = [[], (value) => length(value)];
const preset: Filter = [
  ["default_value", "boolean"],
  (value, given) =>
    value instanceof Undefined || (given.boolean("boolean", false) && !truthy(value))
      ? (given.get("default_value") ?? "")
      : value,
];

/** A method of texts as a filter, of whatever prints as a text. */
const textFilter = (method: string): Filter => [
  [],
  (value, _given, { work }) => methodOf(toText(value), method, work)!.call({ args: [], named: new Map() }),
];

const any = ["1", "2", "3", "4", "5", "6", "7", "8"];

const filters: Readonly<Record<string, Filter>> = {
  abs: [
    [],
    (value) => {
      if (!isNumber(value)) throw new TemplateError(`abs of a ${typeName(value)}`);
      return value instanceof Float ? new Float(Math.abs(value.value)) : Math.abs(Number(value));
    },
  ],
  capitalize: [[], (value) => capitalized(toText(value))],
  count: length1,
  d: preset,
  default: preset,
  dictsort: [
    ["case_sensitive", "by", "reverse"],
    (value, given, { work }) => {
      if (!isDict(value)) throw new TemplateError(`dictsort of a ${typeName(value)}`);
      const by = given.text("by", "key") === "value" ? 1 : 0;
      const fold = given.boolean("case_sensitive", false) ? (item: Value) => item : caseless;
      const pairs = Array.from(value, ([key, item]) => tupleOf(key, item));
      return sorted(pairs, (pair) => fold((pair as Tuple)[by]), given.boolean("reverse", false), work);
    },
  ],
  escape: [[], (value) => escapedHtml(toText(value))],
  e: [[], (value) => escapedHtml(toText(value))],
  first: [[], (value) => itemsOf(value)[0] ?? new Undefined("the first of nothing")],
  float: [
    ["default"],
    (value, given) => {
      const number = isNumber(value) ? numberOf(value) : Number(toText(value).trim() || "x");
      return Number.isNaN(number) ? (given.get("default") ?? new Float(0)) : new Float(number);
    },
  ],
  groupby: [
    ["attribute"],
    (value, given, context) => {
      const key = (item: Value) => attributeOf(item, given.need("attribute"), context);
      const groups: [Value, Value[]][] = [];
      for (const item of sorted(itemsOf(value), (each) => caseless(key(each)), false, context.work)) {
        const last = groups.at(-1);
        if (last !== undefined && equal(caseless(last[0]), caseless(key(item)))) last[1].push(item);
        else groups.push([key(item), [item]]);
      }
      return groups.map(([name, list]) => tupleOf(name, list));
    },
  ],
  indent: [
    ["width", "first", "blank"],
    (value, given, { work }) => {
      const width = given.get("width") ?? 4;
      const pad = typeof width === "string" ? width : " ".repeat(Math.min(1024, given.integer("width", 4)));
      const lines = toText(value).split("\n");
      work.room(toText(value).length + pad.length * lines.length, "characters");
      const blank = given.boolean("blank", false);
      const [head, ...rest] = lines;
      const tail = rest.map((line) => (line !== "" || blank ? pad + line : line));
      return [(given.boolean("first", false) ? pad : "") + head, ...tail].join("\n");
    },
  ],
  int: [
    ["default"],
    (value, given) => {
      const number = isNumber(value) ? numberOf(value) : Number(toText(value).trim() || "x");
      return Number.isFinite(number) ? Math.trunc(number) : (given.get("default") ?? 0);
    },
  ],
  items: [
    [],
    (value) => {
      if (value instanceof Undefined) return [];
      if (!isDict(value)) throw new TemplateError(`items of a ${typeName(value)}`);
      return Array.from(value, ([key, item]) => tupleOf(key, item));
    },
  ],
  join: [
    ["d", "attribute"],
    (value, given, context) => {
      const between = given.printed("d", "");
      const parts = itemsOf(value).map((item) => toText(attributeOf(item, given.get("attribute"), context)));
      context.work.room(
        parts.reduce((sum, part) => sum + part.length + between.length, 0),
        "characters",
      );
      return parts.join(between);
    },
  ],
  last: [[], (value) => itemsOf(value).at(-1) ?? new Undefined("the last of nothing")],
  length: length1,
  list: [[], (value) => [...itemsOf(value)]],
  lower: textFilter("lower"),
  map: [
    [...any, "attribute", "default"],
    (value, given, context) => {
      const { args, named } = given.given;
      const attribute = named.get("attribute");
      return itemsOf(value).map((item) => {
        context.work.node();
        if (attribute === undefined) {
          return filter(toText(args[0]), item, { args: args.slice(1), named: new Map() }, context);
        }
        const found = attributeOf(item, attribute, context);
        return found instanceof Undefined ? (named.get("default") ?? found) : found;
      });
    },
  ],
  max: [["case_sensitive", "attribute"], extreme(1)],
  min: [["case_sensitive", "attribute"], extreme(-1)],
  reject: [any, selecting(false)],
  rejectattr: [any, selectingBy(false)],
  replace: [["old", "new", "count"], (value, given, { work }) => replaced(toText(value), given, work)],
  reverse: [
    [],
    (value) => (typeof value === "string" ? [...itemsOf(value)].reverse().join("") : [...itemsOf(value)].reverse()),
  ],
  round: [
    ["precision", "method"],
    (value, given) => {
      if (!isNumber(value)) throw new TemplateError(`round of a ${typeName(value)}`);
      const power = 10 ** given.integer("precision", 0);
      const scaled = numberOf(value) * power;
      const method = given.text("method", "common");
      if (method === "ceil") return new Float(Math.ceil(scaled) / power);
      if (method === "floor") return new Float(Math.floor(scaled) / power);
      const nearest = Math.abs(scaled % 1) === 0.5 ? 2 * Math.round(scaled / 2) : Math.round(scaled);
      return value instanceof Float ? new Float(nearest / power) : nearest / power;
    },
  ],
  safe: [[], (value) => toText(value)],
  select: [any, selecting(true)],
  selectattr: [any, selectingBy(true)],
  sort: [
    ["reverse", "case_sensitive", "attribute"],
    (value, given, context) => {
      const fold = given.boolean("case_sensitive", false) ? (item: Value) => item : caseless;
      const key = (item: Value) => fold(attributeOf(item, given.get("attribute"), context));
      return sorted(itemsOf(value), key, given.boolean("reverse", false), context.work);
    },
  ],
  string: [[], (value) => toText(value)],
  sum: [
    ["attribute", "start"],
    (value, given, context) =>
      itemsOf(value).reduce<Value>(
        (total, item) => binary("+", total, attributeOf(item, given.get("attribute"), context), context.work),
        given.get("start") ?? 0,
      ),
  ],
  title: [
    [],
    (value) =>
      toText(value).replace(/[^-\s({[<]+/gu, (word) => {
        const [first, ...rest] = Array.from(word);
        return first.toUpperCase() + rest.join("").toLowerCase();
      }),
  ],
  tojson: [
    ["ensure_ascii", "indent", "separators", "sort_keys"],
    (value, given) => {
      const width = given.get("indent");
      const pair = given.get("separators");
      const indent =
        width === undefined || width === null
          ? undefined
          : typeof width === "string"
            ? width.slice(0, 64)
            : " ".repeat(Math.min(64, Math.max(0, given.integer("indent"))));
      const [item, key] = pair === undefined || pair === null ? [] : itemsOf(pair).map(toText);
      const separators = [item ?? (indent === undefined ? ", " : ","), key ?? ": "] as const;
      const [sortKeys, ensureAscii] = [given.boolean("sort_keys", false), given.boolean("ensure_ascii", false)];
      return dumps(value, { indent, separators, sortKeys, ensureAscii });
    },
  ],
  trim: [
    ["chars"],
    (value, given) => trim(toText(value), given.get("chars") == null ? undefined : given.text("chars")),
  ],
  truncate: [
    ["length", "killwords", "end", "leeway"],
    (value, given) => {
      const [text, most] = [itemsOf(toText(value)), given.integer("length", 255)];
      const end = given.text("end", "...");
      if (text.length <= most + given.integer("leeway", 5)) return text.join("");
      const cut = text.slice(0, Math.max(0, most - length(end))).join("");
      const space = cut.lastIndexOf(" ");
      return (given.boolean("killwords", false) || space < 0 ? cut : cut.slice(0, space)) + end;
    },
  ],
  unique: [
    ["case_sensitive", "attribute"],
    (value, given, context) => {
      const fold = given.boolean("case_sensitive", false) ? (item: Value) => item : caseless;
      const seen = new Set<string>();
      return itemsOf(value).filter((item) => {
        const key = dumps(fold(attributeOf(item, given.get("attribute"), context)), plainJson);
        return !seen.has(key) && seen.add(key);
      });
    },
  ],
  upper: textFilter("upper"),
  wordcount: [[], (value) => (toText(value).match(/[\p{L}\p{N}_]+/gu) ?? []).length],
};

const plainJson = { separators: [",", ":"], sortKeys: true, ensureAscii: false } as const;

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&#34;",
  "'": "&#39;",
};
const escapedHtml = (text: string) => text.replace(/[&<>"']/g, (c) => entities[c]);

/** @throws TemplateError for a filter that is not known, and for what it cannot be used on */
export function filter(name: string, value: Value, given: Arguments, context: FilterContext): Value {
  if (!Object.hasOwn(filters, name)) throw new TemplateError(`the filter ${name.slice(0, 40)} is not known`);
  const [names, run] = filters[name];
  if (typeof value === "string") context.work.spend(value.length);
  else if (isList(value)) context.work.spend(value.length);
  else if (isDict(value)) context.work.spend((value as Dict).size);
  return context.work.made(run(value, new Given(name, given, names), context));
}

/**
 * Values of a template, as Python has them: what prints, compares and sorts otherwise than in JavaScript is a class here.
 */
export type Value =
  | null
  | boolean
  | number
  | string
  | Float
  | Undefined
  | Namespace
  | Callable
  | Dict
  | readonly Value[];
export type Dict = Map<Value, Value>;

/** What stops a template: its own `raise_exception`, a wrong operation, or a limit. */
export class TemplateError extends Error {}

/** A number with a fraction in Python's sense: 4 / 2 prints 2.0. */
export class Float {
  constructor(readonly value: number) {}
}

/** The value of what is not there. It prints nothing, is false and empty, and cannot be looked into. */
export class Undefined {
  constructor(readonly name: string) {}
}

/** A list that prints in round brackets; what is made from its items is a list. */
export class Tuple extends Array<Value> {
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
}

export const tupleOf = (...items: Value[]): Tuple => Object.setPrototypeOf(items, Tuple.prototype) as Tuple;

/** `namespace()`: the one thing whose attributes a template may set. */
export class Namespace {
  constructor(readonly fields: Map<string, Value>) {}
}

export interface Arguments {
  args: readonly Value[];
  named: ReadonlyMap<string, Value>;
}

export class Callable {
  constructor(
    readonly name: string,
    readonly call: (given: Arguments) => Value,
    /** Fields that templates look at, as `loop.index` of the callable `loop`. */
    readonly fields?: ReadonlyMap<string, Value>,
  ) {}
}

export const isDict = (value: Value): value is Dict => value instanceof Map;
export const isList = (value: Value): value is readonly Value[] => Array.isArray(value);
export const isNumber = (value: Value): value is number | boolean | Float =>
  typeof value === "number" || typeof value === "boolean" || value instanceof Float;
export const numberOf = (value: number | boolean | Float): number =>
  value instanceof Float ? value.value : Number(value);

export function typeName(value: Value): string {
  if (value === null) return "None";
  if (value instanceof Undefined) return "undefined";
  if (value instanceof Float) return "float";
  if (value instanceof Tuple) return "tuple";
  if (isList(value)) return "list";
  if (isDict(value)) return "dict";
  if (value instanceof Namespace) return "namespace";
  if (value instanceof Callable) return "function";
  return { string: "str", boolean: "bool", number: "int" }[typeof value as "string" | "boolean" | "number"];
}

export function truthy(value: Value): boolean {
  if (value instanceof Undefined) return false;
  if (value instanceof Float) return value.value !== 0;
  if (isList(value)) return value.length > 0;
  if (isDict(value)) return value.size > 0;
  return Boolean(value);
}

/** Python's `==`. */
export function equal(a: Value, b: Value): boolean {
  if (a === b) return true;
  if (isNumber(a) && isNumber(b)) return numberOf(a) === numberOf(b);
  if (isList(a) && isList(b)) {
    return (
      a instanceof Tuple === b instanceof Tuple && a.length === b.length && a.every((item, i) => equal(item, b[i]))
    );
  }
  if (isDict(a) && isDict(b)) {
    return a.size === b.size && Array.from(a).every(([key, value]) => b.has(key) && equal(value, b.get(key)!));
  }
  return a instanceof Undefined && b instanceof Undefined;
}

/** Below, at or above zero, as Python orders two values. @throws TemplateError for values without an order */
export function compare(a: Value, b: Value): number {
  if (isNumber(a) && isNumber(b)) return numberOf(a) - numberOf(b);
  if (typeof a === "string" && typeof b === "string") return compareTexts(a, b);
  if (isList(a) && isList(b)) {
    for (let i = 0; i < Math.min(a.length, b.length); i++) if (!equal(a[i], b[i])) return compare(a[i], b[i]);
    return a.length - b.length;
  }
  throw new TemplateError(`${typeName(a)} and ${typeName(b)} cannot be ordered`);
}

/** By code points: UTF-16 units order characters beyond U+FFFF before some below. */
function compareTexts(a: string, b: string): number {
  if (a === b) return 0;
  let at = 0;
  while (at < a.length && at < b.length && a[at] === b[at]) at++;
  if (at > 0 && /[\udc00-\udfff]/.test((a[at] ?? "") + (b[at] ?? ""))) at--;
  return (a.codePointAt(at) ?? -1) - (b.codePointAt(at) ?? -1);
}

/** Characters of a text as Python counts them. */
export const lengthOf = (text: string): number => {
  let length = text.length;
  for (let i = 0; i < text.length - 1; i++) {
    if ((text.charCodeAt(i) & 0xfc00) === 0xd800 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) {
      length--;
      i++;
    }
  }
  return length;
};

const pythonFloat = (value: number): string => {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  const [, digits, exponent] = /^(.*?)(?:e([+-]\d+))?$/.exec(String(value))!;
  if (exponent !== undefined) return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
  if (Math.abs(value) >= 1e16) {
    const [mantissa, power] = value.toExponential().split("e+");
    return `${mantissa}e+${power.padStart(2, "0")}`;
  }
  if (value !== 0 && Math.abs(value) < 1e-4) {
    const [mantissa, power] = value.toExponential().split("e-");
    return `${mantissa}e-${power.padStart(2, "0")}`;
  }
  return Number.isInteger(value) ? `${Object.is(value, -0) ? "-0" : digits}.0` : digits;
};

/** Python's `str`, which is what a template prints. */
export function toText(value: Value): string {
  if (typeof value === "string") return value;
  return value instanceof Undefined ? "" : repr(value);
}

const maxDepth = 64;

/** Python's `repr`. */
export function repr(value: Value, depth = 0): string {
  if (depth > maxDepth) throw new TemplateError("a value is nested too deep to be printed");
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return reprText(value);
  if (value instanceof Float) return pythonFloat(value.value);
  if (value instanceof Undefined) return "Undefined";
  const inner = (item: Value) => repr(item, depth + 1);
  if (value instanceof Tuple) return value.length === 1 ? `(${inner(value[0])},)` : `(${value.map(inner).join(", ")})`;
  if (isList(value)) return `[${value.map(inner).join(", ")}]`;
  if (isDict(value)) return `{${Array.from(value, ([key, item]) => `${inner(key)}: ${inner(item)}`).join(", ")}}`;
  throw new TemplateError(`a ${typeName(value)} cannot be printed`);
}

function reprText(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escapes: Record<string, string> = {
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    [quote]: `\\${quote}`,
  };
  return `${quote}${text.replace(/[\\\n\r\t'"]|[^\P{C}\u200d]|[^\P{Z} ]/gu, (c) => escapes[c] ?? (c === "'" || c === '"' ? c : escaped(c)))}${quote}`;
}

function escaped(character: string): string {
  const code = character.codePointAt(0)!;
  const hex = (width: number) => code.toString(16).padStart(width, "0");
  return code < 256 ? `\\x${hex(2)}` : code < 65536 ? `\\u${hex(4)}` : `\\U${hex(8)}`;
}

const maxCharactersOneByOne = 200_000;

/** @throws TemplateError for a text too long to be gone through character by character */
export function charactersOf(text: string): string[] {
  if (text.length <= maxCharactersOneByOne) return Array.from(text);
  throw new TemplateError(`a text of ${text.length} characters, taken one by one`);
}

/** Whether every UTF-16 unit is a character, so that places are the same in Python and here. */
export const isPlain = (text: string): boolean => !/[\ud800-\udfff]/.test(text);

/** What a loop, a filter or `list` goes through. @throws TemplateError for what has no items */
export function itemsOf(value: Value): readonly Value[] {
  if (isList(value)) return value;
  if (typeof value === "string") return charactersOf(value);
  if (isDict(value)) return [...value.keys()];
  if (value instanceof Undefined) return [];
  throw new TemplateError(`a ${typeName(value)} has no items`);
}

/** Values of JavaScript as a template sees them: objects become dictionaries. @throws TemplateError for deep nesting */
export function fromJs(value: unknown, depth = 0): Value {
  if (depth > maxDepth) throw new TemplateError("the values given are nested too deep");
  if (value === null || typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number") return Number.isSafeInteger(value) ? value : new Float(value);
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Callable || value instanceof Undefined) return value;
  if (Array.isArray(value)) return value.map((item) => fromJs(item, depth + 1));
  if (typeof value === "object") {
    const entries = value instanceof Map ? value : Object.entries(value);
    return new Map(Array.from(entries, ([key, item]) => [key as Value, fromJs(item, depth + 1)]));
  }
  return new Undefined("a value");
}

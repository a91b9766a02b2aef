import {
  compare,
  equal,
  Float,
  isDict,
  isList,
  isNumber,
  isPlain,
  itemsOf,
  lengthOf,
  numberOf,
  TemplateError,
  Tuple,
  toText,
  tupleOf,
  typeName,
  Undefined,
  type Value,
} from "./values.js";
import type { Work } from "./work.js";

const wrong = (operator: string, a: Value, b: Value) =>
  new TemplateError(`${operator} between ${typeName(a)} and ${typeName(b)}`);

/** A whole number where both were, else a fraction. */
function arithmetic(a: Value, b: Value, operator: string, compute: (x: number, y: number) => number): Value {
  if (!isNumber(a) || !isNumber(b)) throw wrong(operator, a, b);
  const result = compute(numberOf(a), numberOf(b));
  return a instanceof Float || b instanceof Float || !Number.isInteger(result) ? new Float(result) : result;
}

function divisor(b: Value): void {
  if (isNumber(b) && numberOf(b) === 0) throw new TemplateError("division by zero");
}

const operators: Readonly<Record<string, (a: Value, b: Value, work: Work) => Value>> = {
  "+"(a, b, work) {
    if (typeof a === "string" && typeof b === "string") {
      work.room(a.length + b.length, "characters");
      return a + b;
    }
    if (isList(a) && isList(b) && a instanceof Tuple === b instanceof Tuple) {
      work.room(a.length + b.length, "items");
      return a instanceof Tuple ? tupleOf(...a, ...b) : [...a, ...b];
    }
    return arithmetic(a, b, "+", (x, y) => x + y);
  },
  "-": (a, b) => arithmetic(a, b, "-", (x, y) => x - y),
  "*"(a, b, work) {
    const [times, value] = typeof a === "number" || typeof a === "boolean" ? [a, b] : [b, a];
    if ((typeof times === "number" || typeof times === "boolean") && (typeof value === "string" || isList(value))) {
      const count = Math.max(0, Number(times));
      work.room(count * value.length, typeof value === "string" ? "characters" : "items");
      if (typeof value === "string") return value.repeat(count);
      return Array.from({ length: count * value.length }, (_, i) => value[i % value.length]);
    }
    return arithmetic(a, b, "*", (x, y) => x * y);
  },
  "/"(a, b) {
    divisor(b);
    const result = arithmetic(a, b, "/", (x, y) => x / y);
    return result instanceof Float ? result : new Float(Number(result));
  },
  "//"(a, b) {
    divisor(b);
    return arithmetic(a, b, "//", (x, y) => Math.floor(x / y));
  },
  "%"(a, b) {
    if (typeof a === "string") throw new TemplateError("% of a text is not supported; use ~ or join");
    divisor(b);
    return arithmetic(a, b, "%", (x, y) => x - y * Math.floor(x / y));
  },
  "**": (a, b) => arithmetic(a, b, "**", (x, y) => x ** y),
  "~"(a, b, work) {
    const [left, right] = [toText(a), toText(b)];
    work.room(left.length + right.length, "characters");
    return left + right;
  },
};

export const binary = (operator: string, a: Value, b: Value, work: Work): Value => operators[operator](a, b, work);

/** Whether `items` holds `value`, as `in` has it. */
export function contains(items: Value, value: Value, work: Work): boolean {
  if (typeof items === "string") {
    if (typeof value !== "string") throw new TemplateError(`a ${typeName(value)} in a text`);
    work.spend(items.length);
    return items.includes(value);
  }
  if (isDict(items)) return items.has(value);
  const list = itemsOf(items);
  work.spend(list.length);
  return list.some((item) => equal(item, value));
}

const comparisons: Readonly<Record<string, (a: Value, b: Value, work: Work) => boolean>> = {
  "==": equal,
  "!=": (a, b) => !equal(a, b),
  "<": (a, b) => compare(a, b) < 0,
  "<=": (a, b) => compare(a, b) <= 0,
  ">": (a, b) => compare(a, b) > 0,
  ">=": (a, b) => compare(a, b) >= 0,
  in: (a, b, work) => contains(b, a, work),
  "not in": (a, b, work) => !contains(b, a, work),
};

export const compared = (operator: string, a: Value, b: Value, work: Work): boolean =>
  comparisons[operator](a, b, work);

/** Python's slice of a text or a list. */
export function slice(value: Value, bounds: readonly (Value | undefined)[], work: Work): Value {
  const [from, to, by] = bounds.map((bound) => {
    if (bound === undefined || bound === null) return undefined;
    if (typeof bound !== "number") throw new TemplateError(`a slice at a ${typeName(bound)}`);
    return bound;
  });
  const step = by ?? 1;
  if (step === 0) throw new TemplateError("a slice of step 0");
  if (value instanceof Undefined) throw new TemplateError(`${value.name} is not there and cannot be cut`);
  const plain = typeof value === "string" && isPlain(value);
  if (typeof value !== "string" && !isList(value)) throw new TemplateError(`a ${typeName(value)} cannot be cut`);
  work.spend(value.length);
  const items = plain ? value : itemsOf(value);
  const { length } = items;
  const [lowest, highest] = step > 0 ? [0, length] : [-1, length - 1];
  const place = (bound: number) => Math.min(highest, Math.max(lowest, bound < 0 ? bound + length : bound));
  const start = from === undefined ? (step > 0 ? lowest : highest) : place(from);
  const stop = to === undefined ? (step > 0 ? highest : lowest) : place(to);
  if (plain && step === 1) return value.slice(start, Math.max(start, stop));
  const picked: Value[] = [];
  for (let i = start; step > 0 ? i < stop : i > stop; i += step) picked.push(items[i]);
  if (typeof value === "string") return picked.join("");
  return value instanceof Tuple ? tupleOf(...picked) : picked;
}

/** Python's `len`. */
export function length(value: Value): number {
  if (typeof value === "string") return lengthOf(value);
  if (isDict(value)) return value.size;
  return itemsOf(value).length;
}

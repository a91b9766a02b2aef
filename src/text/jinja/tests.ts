import { compared, contains } from "./operators.js";
import {
  Callable,
  equal,
  Float,
  isDict,
  isList,
  isNumber,
  numberOf,
  TemplateError,
  truthy,
  typeName,
  Undefined,
  type Value,
} from "./values.js";
import type { Work } from "./work.js";

type Test = (value: Value, args: readonly Value[], work: Work) => boolean;

function integer(value: Value): number {
  if (isNumber(value) && !(value instanceof Float)) return numberOf(value);
  throw new TemplateError(`a ${typeName(value)} where a whole number is expected`);
}

const comparing =
  (operator: string): Test =>
  (value, [other], work) =>
    compared(operator, value, other, work);

const [eq, ne, lt, le, gt, ge] = ["==", "!=", "<", "<=", ">", ">="].map(comparing);

/** What may follow `is`, and what `select` and its kin take by name. */
export const tests: Readonly<Record<string, Test>> = {
  boolean: (value) => typeof value === "boolean",
  callable: (value) => value instanceof Callable,
  defined: (value) => !(value instanceof Undefined),
  divisibleby: (value, [by]) => integer(value) % integer(by) === 0,
  even: (value) => integer(value) % 2 === 0,
  false: (value) => value === false,
  float: (value) => value instanceof Float,
  in: (value, [items], work) => contains(items, value, work),
  integer: (value) => typeof value === "number",
  iterable: (value) => typeof value === "string" || isList(value) || isDict(value) || value instanceof Undefined,
  lower: (value) => typeof value === "string" && value === value.toLowerCase() && value !== value.toUpperCase(),
  mapping: isDict,
  none: (value) => value === null,
  number: (value) => isNumber(value),
  odd: (value) => Math.abs(integer(value) % 2) === 1,
  sameas: (value, [other]) => value === other || (typeof value !== "object" && equal(value, other)),
  sequence: (value) => typeof value === "string" || isList(value) || isDict(value) || value instanceof Undefined,
  string: (value) => typeof value === "string",
  true: (value) => value === true,
  truthy,
  undefined: (value) => value instanceof Undefined,
  upper: (value) => typeof value === "string" && value === value.toUpperCase() && value !== value.toLowerCase(),
  eq,
  equalto: eq,
  "==": eq,
  ne,
  "!=": ne,
  lt,
  lessthan: lt,
  "<": lt,
  le,
  "<=": le,
  gt,
  greaterthan: gt,
  ">": gt,
  ge,
  ">=": ge,
};

export function test(name: string, value: Value, args: readonly Value[], work: Work): boolean {
  if (!Object.hasOwn(tests, name)) throw new TemplateError(`the test ${name.slice(0, 40)} is not known`);
  return tests[name](value, args, work);
}

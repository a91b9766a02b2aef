import { UsageError } from "./errors.js";
import { quote } from "./quote.js";

/** What an option may be, in words and as a test. */
export interface OptionRule {
  readonly expected: string;
  valid(value: unknown): boolean;
}

/** A rule for every option of a call: a table that leaves one out does not compile. */
export type OptionRules<Options> = Readonly<Record<keyof Required<Options>, OptionRule>>;

const rule = (expected: string, valid: (value: unknown) => boolean): OptionRule => ({ expected, valid });
const isObject = (value: unknown): value is object => typeof value === "object" && value !== null;

/** The rules that tables of options are made of, each with what it expects in words. */
export const optionRules = {
  boolean: rule("true or false", (value) => typeof value === "boolean"),
  object: (what: string) => rule(what, isObject),
  /** @param method that it must have */
  having: (method: string, what: string) =>
    rule(what, (value) => isObject(value) && typeof (value as Record<string, unknown>)[method] === "function"),
  function: rule("a function", (value) => typeof value === "function"),
  integer: (least: number) =>
    rule(`an integer of at least ${least}`, (value) => Number.isSafeInteger(value) && (value as number) >= least),
  oneOf: (names: readonly string[]) =>
    rule(`one of ${names.join(", ")}`, (value) => typeof value === "string" && names.includes(value)),
  each: (item: OptionRule, what: string) =>
    rule(what, (value) => Array.isArray(value) && value.every((one) => item.valid(one))),
  text: rule("a text that is not empty", (value) => typeof value === "string" && value !== ""),
  /** Looked at elsewhere. */
  any: rule("anything", () => true),
  signal: rule("an AbortSignal", (value) => isObject(value) && "aborted" in value),
};

/**
 * Refuses options that a call does not have and values of another kind, all at once; undefined is as if left out.
 * @throws UsageError that says what was expected
 */
export function checkOptions<Options extends object>(call: string, given: Options, rules: OptionRules<Options>): void {
  if (!isObject(given)) throw new UsageError(`${call}: options are ${quote(given)}; expected an object`);
  const problems = Object.entries(given).flatMap(([name, value]) => {
    const known = Object.hasOwn(rules, name) ? rules[name as keyof Options] : undefined;
    if (known === undefined) return [`there is no option ${quote(name)}${suggestion(name, Object.keys(rules))}`];
    if (value === undefined || known.valid(value)) return [];
    return [`${name} is ${quote(value)}; expected ${known.expected}`];
  });
  if (problems.length > 0) throw new UsageError(`${call}: ${problems.join("; ")}`);
}

/** max_tokens and MaxTokens for maxTokens; else all there are. */
function suggestion(name: string, known: readonly string[]): string {
  const plain = (text: string) => text.replace(/[^a-z0-9]/gi, "").toLowerCase();
  const meant = known.find((one) => plain(one) === plain(name));
  return meant === undefined ? `; there are ${known.join(", ")}` : `; ${meant} is meant`;
}

import { UsageError } from "../core/index.js";

/** What one parameter of an attention pattern, a KV policy or another choice may be. */
export type ParameterRule =
  | { readonly about: string; readonly least: number; readonly preset?: number }
  | { readonly about: string; readonly most: number; readonly preset?: number }
  | { readonly about: string; readonly oneOf: readonly string[]; readonly preset: string }
  | { readonly about: string; readonly like: RegExp; readonly preset: string };

/** The parameters of an entry by name. Without a preset a parameter must be given. */
export type ParameterRules = Readonly<Record<string, ParameterRule>>;

/** What rules let through. */
export type ParameterValues<R extends ParameterRules> = {
  readonly [K in keyof R]: R[K] extends { oneOf: readonly (infer T)[] }
    ? T
    : R[K] extends { like: RegExp }
      ? string
      : number;
};

/** An entry of a table that is chosen by a text: `name:parameter=value,parameter=value`. */
export interface Choosable {
  readonly summary: string;
  readonly parameters: ParameterRules;
}

/** A counted parameter. Without `preset` it must be given. */
export const count = (about: string, least: number, preset?: number) => ({ about, least, preset });

/** A number from 0 to `most`, with decimals. Without `preset` it must be given. */
export const share = (about: string, preset?: number, most = 1) => ({ about, most, preset });

/** As `share`, of which one of several is given; NaN stands for none. */
export const given = (about: string, most: number) => ({ about, most, preset: Number.NaN });

/** A parameter that is one of some words, the first where nothing is said. */
export const oneOf = <const W extends readonly [string, ...string[]]>(about: string, ...words: W) => ({
  about,
  oneOf: words,
  preset: words[0],
});

/** A parameter that is a word of some letters. */
export const word = (about: string, like: RegExp, preset: string) => ({ about, like, preset });

/**
 * Reads `name` or `name:parameter=value,parameter=value`.
 * @param what what is chosen, for messages: "an attention pattern"
 * @throws UsageError for a name or a parameter that is not in the table, and for a value out of bounds
 */
export function parseChoice<T extends Choosable>(
  what: string,
  table: Readonly<Record<string, T>>,
  text: string,
): { name: string; entry: T; values: Record<string, number | string> } {
  const [name, ...rest] = text.trim().split(":");
  if (!Object.hasOwn(table, name)) {
    throw new UsageError(`${JSON.stringify(name)} is not ${what}; there are ${Object.keys(table).join(", ")}`);
  }
  const entry = table[name];
  const fail = (problem: string): never => {
    throw new UsageError(`${what} ${JSON.stringify(text)}: ${problem}; write ${usage(name, entry)}`);
  };
  const values: Record<string, number | string> = {};
  const given = rest.join(":");
  for (const part of given === "" ? [] : given.split(",")) {
    const [key, value, ...more] = part.split("=").map((piece) => piece.trim());
    if (value === undefined || value === "" || more.length > 0) fail(`${JSON.stringify(part)} is not parameter=value`);
    if (!Object.hasOwn(entry.parameters, key)) fail(`there is no parameter ${JSON.stringify(key)}`);
    if (Object.hasOwn(values, key)) fail(`${key} is given twice`);
    const rule = entry.parameters[key];
    if ("oneOf" in rule) {
      if (!rule.oneOf.includes(value)) fail(`${key} is one of ${rule.oneOf.join(", ")}, not ${JSON.stringify(value)}`);
      values[key] = value;
    } else if ("like" in rule) {
      if (!rule.like.test(value)) fail(`${key} is ${rule.about}, not ${JSON.stringify(value)}`);
      values[key] = value;
    } else if ("most" in rule) {
      const n = /^\d{1,3}(\.\d{1,15})?$/.test(value) ? Number(value) : Number.NaN;
      if (!(n <= rule.most)) fail(`${key} is a number from 0 to ${rule.most}, not ${JSON.stringify(value)}`);
      values[key] = n;
    } else {
      const n = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN;
      if (!(n >= rule.least)) fail(`${key} is a whole number from ${rule.least} on, not ${JSON.stringify(value)}`);
      values[key] = n;
    }
  }
  for (const [key, { preset }] of Object.entries(entry.parameters)) {
    if (Object.hasOwn(values, key)) continue;
    if (preset === undefined) fail(`${key} is missing`);
    values[key] = preset!;
  }
  return { name, entry, values };
}

/** How an entry is written: `longformer:window=N,global=16`; N must be given, of what stands between bars one. */
export function usage(name: string, { parameters }: Choosable): string {
  const rules = Object.entries(parameters);
  const either = rules.filter(([, { preset }]) => Number.isNaN(preset)).map(([key]) => `${key}=N`);
  const others = rules.filter(([, { preset }]) => !Number.isNaN(preset));
  const parts = [
    ...(either.length === 0 ? [] : [either.join("|")]),
    ...others.map(([key, { preset }]) => `${key}=${preset ?? "N"}`),
  ];
  return `${name}${parts.length === 0 ? "" : `:${parts.join(",")}`}`;
}

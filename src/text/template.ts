import { FormatError } from "../core/index.js";
import { fromJs, literal, parse, render, TemplateError, type Value } from "./jinja/index.js";
import { Float, isDict, isList } from "./jinja/values.js";

/** Where a template stands, for messages. */
export interface TemplatePlace {
  file: string;
  field: string;
}

/** A template that was read: values by name in, a text out. @throws FormatError that names what is not there */
export type Template = (values: Readonly<Record<string, unknown>>) => string;

/**
 * Reads a Jinja template whose blanks stay as they are, and in which a value that is not there is an error.
 * @throws FormatError
 */
export function compileTemplate(text: string, place: TemplatePlace): Template {
  const program = guarded(place, "not a template", () => parse(text, { trim: false }));
  return (values) =>
    guarded(place, "the template stopped", () => {
      const globals = Object.entries(values).map(([name, value]) => [name, fromJs(value)] as const);
      return render(program, new Map(globals), { strict: true });
    });
}

/** The value of a text that is a literal of Python, as JSON has it. @returns undefined where it is none */
export function parseLiteral(text: string): unknown {
  try {
    return toJs(literal(text));
  } catch (error) {
    if (error instanceof TemplateError) return undefined;
    throw error;
  }
}

function guarded<T>({ file, field }: TemplatePlace, problem: string, run: () => T): T {
  try {
    return run();
  } catch (cause) {
    if (!(cause instanceof TemplateError)) throw cause;
    throw new FormatError({ file, field, problem: `${problem}: ${cause.message}` }, { cause });
  }
}

function toJs(value: Value): unknown {
  if (value instanceof Float) return value.value;
  if (isList(value)) return value.map(toJs);
  if (isDict(value)) return Object.fromEntries(Array.from(value, ([key, item]) => [String(key), toJs(item)]));
  return value;
}

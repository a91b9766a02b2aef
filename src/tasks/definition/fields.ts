import { FormatError, quote } from "../../core/index.js";
import { TaggedText } from "../../io/internal.js";
import { compileTemplate, parseLiteral } from "../../text/internal.js";
import type { Document } from "../documents/document.js";
import { type FunctionField, knownFunction } from "./knownFunctions.js";

/** What a field of a task makes of a document. */
export type FieldOf<T> = (document: Document) => T;

/** Where a field stands, and of which data set its functions would be. */
export interface FieldPlace {
  file: string;
  field: string;
  dataset?: string;
}

const digits = /^\p{Nd}+$/u;

function compile<T>(
  given: string | TaggedText,
  place: FieldPlace,
  read: (value: unknown, rendered: boolean) => T,
): FieldOf<T> {
  if (given instanceof TaggedText) {
    const name = place.field.slice(place.field.lastIndexOf(".") + 1) as FunctionField;
    const known = knownFunction(name, given, place.dataset, place.file);
    return (document) => read(known(document), false);
  }
  const template = compileTemplate(given, place);
  // The name of a column stands for what is in it.
  return (document) => (Object.hasOwn(document, given) ? read(document[given], false) : read(template(document), true));
}

const wrong = ({ file, field }: FieldPlace, value: unknown, expected: string) =>
  new FormatError({ file, field, problem: `${quote(value)} of a document`, expected });

/** The question; a number where it is the place of the right one among several contexts (`doc_to_choice`). */
export function textField(
  given: string | TaggedText,
  place: FieldPlace,
  hasChoices: boolean,
): FieldOf<string | number> {
  return compile(given, place, (value, rendered) => {
    if (typeof value === "string") return rendered && hasChoices && digits.test(value) ? Number(value) : value;
    if (typeof value === "number" && hasChoices) return value;
    throw wrong(place, value, "a text");
  });
}

/** What is right: a text, the place of a choice, or several of either. */
export type Target = string | number | readonly (string | number)[];

export function targetField(
  given: string | number | readonly string[] | TaggedText,
  place: FieldPlace,
  hasChoices: boolean,
): FieldOf<Target> {
  if (typeof given === "number" || Array.isArray(given)) return () => given as Target;
  return compile(given as string | TaggedText, place, (value, rendered) => {
    if (!rendered || typeof value !== "string") return targetOf(value, place);
    if (hasChoices && digits.test(value)) return Number(value);
    if (!/^\[.*\]$/s.test(value)) return value;
    const list = parseLiteral(value);
    return list === undefined ? value : targetOf(list, place);
  });
}

function targetOf(value: unknown, place: FieldPlace): Target {
  if (typeof value === "string" || typeof value === "number") return value;
  if (typeof value === "boolean") return Number(value);
  if (Array.isArray(value) && value.every((item) => typeof item === "string" || typeof item === "number")) return value;
  throw wrong(place, value, "a text, a number, or a list of them");
}

export function choicesField(
  given: string | readonly string[] | Readonly<Record<string, string>> | TaggedText,
  place: FieldPlace,
): FieldOf<readonly string[]> {
  if (typeof given === "object" && !(given instanceof TaggedText)) {
    const fixed = Array.isArray(given) ? given : Object.values(given);
    return () => fixed;
  }
  return compile(given as string | TaggedText, place, (value, rendered) => {
    const list = rendered ? parseLiteral(value as string) : value;
    if (
      Array.isArray(list) &&
      list.length > 0 &&
      list.every((item) => typeof item === "string" || typeof item === "number")
    ) {
      return list.map(String);
    }
    throw wrong(place, value, "a list of texts that is not empty");
  });
}

/** A text, of a template or a column; "" where there is none. */
export function plainField(given: string | undefined, place: FieldPlace): FieldOf<string> {
  if (given === undefined || given === "") return () => "";
  return compile(given, place, (value) => {
    if (typeof value === "string") return value;
    throw wrong(place, value, "a text");
  });
}

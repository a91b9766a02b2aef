import { FormatError } from "../../core/index.js";
import type { TaggedText } from "../../io/internal.js";
import type { Document } from "../documents/document.js";

/** Functions of one data set's task files, by the fields that name them. */
interface KnownFunctions {
  process_docs?: Readonly<Record<string, (document: Document) => Document>>;
  doc_to_text?: Readonly<Record<string, (document: Document) => number>>;
  doc_to_target?: Readonly<Record<string, (document: Document) => string>>;
  doc_to_choice?: Readonly<Record<string, (document: Document) => string[]>>;
}
export type FunctionField = keyof KnownFunctions;

/** A field of a document that must be a text. @throws FormatError */
function textOf(document: Document, field: string): string {
  const value = document[field];
  if (typeof value === "string") return value;
  throw new FormatError({ file: "a document", field, problem: `no text`, expected: "a text" });
}

/** Marks of WikiHow articles and double blanks go. */
const cleaned = (text: string): string =>
  text
    .trim()
    .replaceAll(" [title]", ". ")
    .replace(/\[.*?\]/g, "")
    .replaceAll("  ", " ");

const capitalized = (text: string): string => {
  const [first = "", ...rest] = Array.from(text);
  return first.toUpperCase() + rest.join("").toLowerCase();
};

/** The two sides of the gap of a sentence. */
function besideGap(document: Document): [string, string] {
  const sentence = textOf(document, "sentence");
  const at = sentence.indexOf("_");
  if (at < 0) throw new FormatError({ file: "a document", field: "sentence", problem: "there is no _ in it" });
  return [sentence.slice(0, at), sentence.slice(at + 1).trim()];
}

/**
 * What functions of lm-evaluation-harness' own task files do, by data set and name. Code of task files is never run; these are
 * known by their names.
 */
const knownFunctions: Readonly<Record<string, KnownFunctions>> = {
  "Rowan/hellaswag": {
    process_docs: {
      "utils.process_docs": (document) => {
        const context = `${textOf(document, "ctx_a")} ${capitalized(textOf(document, "ctx_b"))}`;
        const endings = document.endings;
        if (!Array.isArray(endings))
          throw new FormatError({ file: "a document", field: "endings", problem: "no list" });
        return {
          ...document,
          query: cleaned(`${textOf(document, "activity_label")}: ${context}`),
          choices: endings.map((ending) => cleaned(String(ending))),
          gold: Number(document.label),
        };
      },
    },
  },
  "allenai/winogrande": {
    doc_to_text: {
      "preprocess_winogrande.doc_to_text": (document) => Number(document.answer) - 1,
    },
    doc_to_target: { "preprocess_winogrande.doc_to_target": (document) => besideGap(document)[1] },
    doc_to_choice: {
      "preprocess_winogrande.doc_to_choice": (document) => {
        const [before] = besideGap(document);
        return [textOf(document, "option1"), textOf(document, "option2")].map((option) => before + option);
      },
    },
  },
};
/** Data sets that had other names in earlier versions. */
const formerNames: Readonly<Record<string, string>> = {
  hellaswag: "Rowan/hellaswag",
  winogrande: "allenai/winogrande",
};

/** What a function of a task file does. @throws FormatError for one that is not known */
export function knownFunction<Field extends FunctionField>(
  field: Field,
  { text }: TaggedText,
  dataset: string | undefined,
  file: string,
): NonNullable<KnownFunctions[Field]>[string] {
  const name = (dataset !== undefined && formerNames[dataset]) || dataset;
  const functions = name !== undefined && Object.hasOwn(knownFunctions, name) ? knownFunctions[name][field] : undefined;
  if (functions !== undefined && Object.hasOwn(functions, text)) {
    return (functions as NonNullable<KnownFunctions[Field]>)[text] as NonNullable<KnownFunctions[Field]>[string];
  }
  throw new FormatError({
    file,
    field,
    problem: `the function ${text}`,
    expected: "a column of the data or a Jinja template",
    hint: "Code of task files is not run; of lm-evaluation-harness' own functions those of hellaswag and winogrande are known",
  });
}

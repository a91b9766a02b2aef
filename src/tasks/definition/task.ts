import { FormatError } from "../../core/index.js";
import { TaggedText } from "../../io/internal.js";
import type { Document } from "../documents/document.js";
import type { DataPlace } from "../documents/readSplit.js";
import { type AnswerFilter, compileFilters } from "../filters.js";
import type { ExactMatchOptions } from "../metrics/exactMatch.js";
import { defaultMetrics, metrics } from "../metrics/metrics.js";
import { compilePattern } from "../patterns.js";
import { choicesField, type FieldOf, plainField, type Target, targetField, textField } from "./fields.js";
import { knownFunction } from "./knownFunctions.js";
import type { GenerationSettings, OutputType, TaskFields } from "./schema.js";

/** How a document becomes a question with an answer. */
export interface Wording {
  text: FieldOf<string | number>;
  /** Undefined where there are no choices. */
  choices: FieldOf<readonly string[]> | undefined;
  target: FieldOf<Target>;
  /** What the answer begins with, which is given. */
  prefix: FieldOf<string>;
  /** Between question and answer, and between one example and the next. */
  targetDelimiter: string;
  exampleDelimiter: string;
}

/** A metric of a task. */
export interface TaskMetric {
  name: string;
  aggregation: string;
  higherIsBetter: boolean;
  options: ExactMatchOptions;
}

/** A task, ready to be asked of documents. */
export interface TaskDefinition {
  name: string;
  alias: string;
  version: string | number | null;
  /** For messages: its path among the files. */
  file: string;
  outputType: OutputType;
  place: DataPlace;
  /** Splits: what is asked, and where the examples are from. */
  splits: { training?: string; validation?: string; test?: string };
  /** Changes the documents of every split. */
  process: ((document: Document) => Document) | undefined;
  wording: Wording;
  description: FieldOf<string>;
  examples: {
    wording: Wording;
    split: string | undefined;
    /** Given in the file. */
    documents: readonly Document[] | undefined;
    sampler: "default" | "first_n";
    process: ((document: Document) => Document) | undefined;
  };
  shots: number | undefined;
  metrics: readonly TaskMetric[];
  filters: readonly { name: string; apply: AnswerFilter }[];
  generation: GenerationSettings & { until: string[] };
  /** As the file has it, for the document of results. */
  config: Readonly<Record<string, unknown>>;
}

/**
 * Checks what a task's file says and compiles its templates.
 * @param path of the file among the others @param file the same for messages
 * @throws FormatError
 */
export async function compileTask(fields: TaskFields, path: string, file: string): Promise<TaskDefinition> {
  const {
    output_type: outputType,
    doc_to_choice: choices,
    dataset_path: dataset,
    fewshot_config: examples = {},
  } = fields;
  const needed = (field: "doc_to_text" | "doc_to_target" | "doc_to_choice") => {
    throw new FormatError({ file, field, problem: "missing", expected: `it in a task of the kind ${outputType}` });
  };
  const hasChoices = choices !== undefined;
  if (outputType === "multiple_choice" && !hasChoices) needed("doc_to_choice");
  const docToText = fields.doc_to_text ?? (outputType === "loglikelihood_rolling" ? "" : needed("doc_to_text"))!;
  const docToTarget = fields.doc_to_target ?? needed("doc_to_target")!;
  const at = (field: string) => ({ file, field, dataset });
  const wording: Wording = {
    text: textField(docToText, at("doc_to_text"), hasChoices),
    choices: choices === undefined ? undefined : choicesField(choices, at("doc_to_choice")),
    target: targetField(docToTarget, at("doc_to_target"), hasChoices),
    prefix: plainField(fields.gen_prefix, at("gen_prefix")),
    targetDelimiter: fields.target_delimiter,
    exampleDelimiter: fields.fewshot_delimiter,
  };
  const process = (given: TaggedText | undefined, field: "process_docs") =>
    given && knownFunction(field, given, dataset, file);
  const own = examples;
  const exampleAt = (field: string) => at(`fewshot_config.${field}`);
  return {
    name: fields.task,
    alias: fields.task_alias ?? fields.task,
    version: versionOf(fields.metadata),
    file,
    outputType,
    place: {
      path,
      file,
      task: fields.task,
      datasetPath: dataset,
      datasetName: fields.dataset_name,
      dataFiles: fields.dataset_kwargs?.data_files,
    },
    splits: { training: fields.training_split, validation: fields.validation_split, test: fields.test_split },
    process: process(fields.process_docs, "process_docs"),
    wording,
    description: plainField(fields.description, at("description")),
    examples: {
      wording: {
        text:
          own.doc_to_text === undefined
            ? wording.text
            : textField(own.doc_to_text, exampleAt("doc_to_text"), hasChoices),
        choices:
          own.doc_to_choice === undefined
            ? wording.choices
            : choicesField(own.doc_to_choice, exampleAt("doc_to_choice")),
        target:
          own.doc_to_target === undefined
            ? wording.target
            : targetField(own.doc_to_target, exampleAt("doc_to_target"), hasChoices),
        prefix: own.gen_prefix === undefined ? wording.prefix : plainField(own.gen_prefix, exampleAt("gen_prefix")),
        targetDelimiter: own.target_delimiter ?? wording.targetDelimiter,
        exampleDelimiter: own.fewshot_delimiter ?? wording.exampleDelimiter,
      },
      split: own.split ?? fields.fewshot_split,
      documents: own.samples,
      sampler: own.sampler ?? "default",
      process: process(own.process_docs ?? fields.process_docs, "process_docs"),
    },
    shots: fields.num_fewshot,
    metrics: await metricsOf(fields, file),
    filters: await filtersOf(fields, file),
    generation: { ...fields.generation_kwargs, until: fields.generation_kwargs?.until ?? [fields.fewshot_delimiter] },
    config: plainConfig(fields),
  };
}

function versionOf(metadata: TaskFields["metadata"]): string | number | null {
  const version = metadata?.version;
  return typeof version === "number" || typeof version === "string" ? version : null;
}

async function metricsOf(fields: TaskFields, file: string): Promise<TaskMetric[]> {
  const { output_type: kind } = fields;
  const list =
    fields.metric_list ??
    defaultMetrics[kind].map((metric) => ({ metric }) as NonNullable<TaskFields["metric_list"]>[number]);
  const known: Readonly<Record<string, { aggregation: string; higherIsBetter: boolean }>> = metrics[kind];
  const found: TaskMetric[] = [];
  for (const [i, entry] of list.entries()) {
    const field = `metric_list.${i}`;
    if (!Object.hasOwn(known, entry.metric)) {
      const expected = `one of ${Object.keys(known).join(", ")} in a task of the kind ${kind}`;
      throw new FormatError({ file, field: `${field}.metric`, problem: entry.metric, expected });
    }
    const { aggregation, higherIsBetter } = known[entry.metric];
    const ignored = [];
    for (const source of entry.regexes_to_ignore ?? []) {
      ignored.push(await compilePattern(source, file, `${field}.regexes_to_ignore`));
    }
    found.push({
      name: entry.metric,
      aggregation: entry.aggregation ?? aggregation,
      higherIsBetter: entry.higher_is_better ?? higherIsBetter,
      options: {
        ignored,
        ignoreCase: entry.ignore_case,
        ignorePunctuation: entry.ignore_punctuation,
        ignoreNumbers: entry.ignore_numbers,
      },
    });
  }
  return found;
}

async function filtersOf({ filter_list: lists, output_type: kind }: TaskFields, file: string) {
  if (lists === undefined) return [{ name: "none", apply: (answer: string) => answer }];
  if (kind !== "generate_until") {
    throw new FormatError({
      file,
      field: "filter_list",
      problem: `filters of ${kind}`,
      expected: "them in a task of the kind generate_until",
    });
  }
  const filters = [];
  for (const [i, { name, filter }] of lists.entries()) {
    filters.push({ name, apply: await compileFilters(filter, file, `filter_list.${i}.filter`) });
  }
  return filters;
}

/** The fields as JSON, functions by their names. */
function plainConfig(fields: TaskFields): Record<string, unknown> {
  return JSON.parse(
    JSON.stringify(fields, (_key, value) => (value instanceof TaggedText ? `${value.tag} ${value.text}` : value)),
  );
}

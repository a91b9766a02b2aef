import * as z from "zod/mini";
import { TaggedText } from "../../io/internal.js";
import { aggregations } from "../metrics/aggregations.js";
import { metricNames } from "../metrics/metrics.js";

/** The tag by which task files of lm-evaluation-harness name a function of a Python file beside them. */
export const functionTag = "!function";

const line = z.string().check(z.maxLength(4096));
const text = z.string().check(z.maxLength(2 ** 20));
const reference = z.instanceof(TaggedText);
/** A column of the data, a Jinja template, or a function. */
const template = z.union([text, reference]);
const choices = z.union([
  template,
  z.array(z.coerce.string().check(z.maxLength(2 ** 16))).check(z.maxLength(1024)),
  z.record(line, text),
]);
const count = z.int().check(z.gte(0), z.lte(1000));

/** @param why it is not taken */
const refused = (why: string) => z.optional(z.never({ error: why }));

const oneOf = (names: readonly string[], what: string) =>
  z.string({ error: what }).check(z.refine((name) => names.includes(name), { error: `${what}: ${names.join(", ")}` }));

const metric = z.strictObject({
  metric: oneOf(metricNames, "expected a metric that is known here"),
  aggregation: z.optional(oneOf(Object.keys(aggregations), "expected an aggregation that is known here")),
  higher_is_better: z.optional(z.boolean()),
  hf_evaluate: z.optional(z.literal(false, { error: "metrics of the package evaluate are not loaded" })),
  ignore_case: z.optional(z.boolean()),
  ignore_punctuation: z.optional(z.boolean()),
  ignore_numbers: z.optional(z.boolean()),
  regexes_to_ignore: z.optional(z.array(line).check(z.maxLength(64))),
});
export type MetricEntry = z.infer<typeof metric>;

const tokens = z.optional(z.int().check(z.gte(1), z.lte(2 ** 20)));

const generation = z.strictObject({
  until: z.optional(
    z.union([
      z.pipe(
        line,
        z.transform((one) => [one]),
      ),
      z.array(line).check(z.maxLength(64)),
    ]),
  ),
  max_gen_toks: tokens,
  max_new_tokens: tokens,
  max_tokens: tokens,
  temperature: z.optional(z.coerce.number().check(z.gte(0), z.lte(10))),
  do_sample: z.optional(z.boolean()),
  top_p: z.optional(z.number().check(z.gt(0), z.lte(1))),
  top_k: z.optional(z.int().check(z.gte(0))),
  num_beams: z.optional(z.literal(1, { error: "expected 1: there is no beam search" })),
});
export type GenerationSettings = z.infer<typeof generation>;

const filterStep = z.looseObject({ function: line });
export type FilterStep = z.infer<typeof filterStep>;
const filterList = z
  .array(z.strictObject({ name: line, filter: z.array(filterStep).check(z.minLength(1), z.maxLength(16)) }))
  .check(z.minLength(1), z.maxLength(16));

const examples = z.strictObject({
  sampler: z.optional(z.enum(["default", "first_n"], { error: "expected default or first_n" })),
  split: z.optional(line),
  samples: z.optional(z.array(z.record(z.string(), z.unknown())).check(z.maxLength(1000))),
  process_docs: z.optional(reference),
  doc_to_text: z.optional(template),
  doc_to_choice: z.optional(choices),
  doc_to_target: z.optional(z.union([template, z.int()])),
  gen_prefix: z.optional(text),
  fewshot_delimiter: z.optional(text),
  target_delimiter: z.optional(text),
});

export const outputTypes = ["loglikelihood", "loglikelihood_rolling", "generate_until", "multiple_choice"] as const;
/** What a task asks: how probable given answers, choices or whole texts are, or an answer. */
export type OutputType = (typeof outputTypes)[number];

/** A task as its file has it, in the words of lm-evaluation-harness; null counts as left out. */
export const taskSchema = z.strictObject({
  task: line.check(z.minLength(1)),
  task_alias: z.optional(line),
  tag: z.optional(z.union([line, z.array(line).check(z.maxLength(64))])),
  dataset_path: z.optional(line),
  dataset_name: z.optional(line),
  dataset_kwargs: z.optional(z.looseObject({ data_files: z.optional(z.union([line, z.record(line, line)])) })),
  training_split: z.optional(line),
  validation_split: z.optional(line),
  test_split: z.optional(line),
  fewshot_split: z.optional(line),
  process_docs: z.optional(reference),
  doc_to_text: z.optional(template),
  doc_to_target: z.optional(z.union([template, z.int(), z.array(text).check(z.maxLength(1024))])),
  doc_to_choice: z.optional(choices),
  description: z.optional(text),
  target_delimiter: z._default(text, " "),
  fewshot_delimiter: z._default(text, "\n\n"),
  fewshot_config: z.optional(examples),
  num_fewshot: z.optional(count),
  metric_list: z.optional(z.array(metric).check(z.minLength(1), z.maxLength(32))),
  output_type: z._default(
    z.enum(outputTypes, { error: `expected one of ${outputTypes.join(", ")}` }),
    "generate_until",
  ),
  generation_kwargs: z.optional(generation),
  repeats: z._default(z.literal(1, { error: "expected 1: answers are not drawn several times" }), 1),
  filter_list: z.optional(filterList),
  gen_prefix: z.optional(text),
  should_decontaminate: z.optional(z.boolean()),
  doc_to_decontamination_query: z.optional(template),
  metadata: z.optional(z.record(z.string(), z.unknown())),
  custom_dataset: refused("data comes from files; nothing in a task file is run"),
  process_results: refused("results are made by the metrics that metric_list names; nothing in a task file is run"),
  unsafe_code: z.optional(z.literal(false, { error: "code that a model writes is not run" })),
  use_prompt: refused("prompts of promptsource are not loaded; write doc_to_text"),
  doc_to_image: refused("models here read text"),
  doc_to_audio: refused("models here read text"),
  class: refused("classes of Python are not loaded"),
});
export type TaskFields = z.infer<typeof taskSchema>;

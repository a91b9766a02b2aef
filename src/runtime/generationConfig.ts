import * as z from "zod/mini";
import { FormatError, quote } from "../core/index.js";
import { checkSchema } from "../core/internal.js";
import { isJsonObject, type ModelFiles, readJsonFile, type Warning } from "../io/index.js";
import type { SamplingOptions } from "./samplers.js";

/** How a model's makers sample from it. */
export interface SamplingDefaults {
  /** Empty where the file says nothing, or that the most probable token is taken. */
  sampling: Omit<SamplingOptions, "seed">;
  /** Fields that would change a text and that nothing here does. */
  warnings: Warning[];
}

const fileName = "generation_config.json";

/** What is used. `eos_token_id` is, when the model is read. Made when it is needed, so that pages without it leave it out. */
function usedFields() {
  const number = z.nullish(z.number());
  return z.object({
    do_sample: z.nullish(z.boolean()),
    temperature: number.check(z.refine((t) => t == null || t >= 0, "expected a number of at least 0")),
    top_k: z.nullish(z.int().check(z.gte(0))),
    top_p: number.check(z.refine((p) => p == null || (p > 0 && p <= 1), "expected a number above 0 and up to 1")),
    min_p: number.check(z.refine((p) => p == null || (p >= 0 && p <= 1), "expected a number from 0 to 1")),
    repetition_penalty: number.check(z.refine((p) => p == null || p > 0, "expected a number above 0")),
  });
}

/** What changes no text here: ids, where the file comes from, what is given back, and lengths, which the caller sets. */
const harmless = new Set(
  (
    "eos_token_id bos_token_id pad_token_id decoder_start_token_id transformers_version _from_model_config _commit_hash " +
    "use_cache cache_implementation cache_config return_legacy_cache output_attentions output_hidden_states output_scores " +
    "output_logits return_dict_in_generate max_length max_new_tokens max_time early_stopping num_return_sequences " +
    "low_memory compile_config disable_compile trust_remote_code chat_format max_window_size is_assistant " +
    "num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold prefill_chunk_size"
  ).split(" "),
);

/** Values with which a field does nothing, beside null, false, 0 and an empty list. */
const neutral: Readonly<Record<string, unknown>> = {
  num_beams: 1,
  num_beam_groups: 1,
  length_penalty: 1,
  typical_p: 1,
  encoder_repetition_penalty: 1,
  guidance_scale: 1,
  top_h: 1,
};

/**
 * How a model is sampled from by its `generation_config.json`, as transformers takes it: temperature and cuts where
 * `do_sample` is true, the repetition penalty in any case. Whoever generates passes them on, or does not.
 * @throws FormatError
 */
export async function samplingDefaults(files: ModelFiles): Promise<SamplingDefaults> {
  const raw = await readJsonFile(files, fileName);
  if (raw === undefined) return { sampling: {}, warnings: [] };
  const file = `${files.location}/${fileName}`;
  if (!isJsonObject(raw)) throw new FormatError({ file, problem: "not a JSON object" });
  const used = usedFields();
  const fields = checkSchema(used, raw, file);
  const { temperature, top_k: topK, top_p: topP, min_p: minP, repetition_penalty: repetitionPenalty } = fields;
  const all = {
    ...(fields.do_sample === true && { temperature: temperature ?? 1, topK, topP, minP }),
    repetitionPenalty,
  };
  const sampling = Object.fromEntries(Object.entries(all).filter(([, value]) => value != null));
  const warnings = Object.entries(raw)
    .filter(([field]) => !(field in used.shape) && !harmless.has(field))
    .filter(([field, value]) => !doesNothing(value) && value !== neutral[field])
    .map(([field, value]) => ({ file, field, problem: `${quote(value)} is not used: texts are generated without it` }));
  return { sampling, warnings };
}

const doesNothing = (value: unknown): boolean =>
  value === null || value === false || value === 0 || (Array.isArray(value) && value.length === 0);

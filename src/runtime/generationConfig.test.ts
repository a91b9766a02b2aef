import { describe, expect, it } from "vitest";
import { FormatError } from "../core/index.js";
import { memoryFiles } from "../io/index.js";
import { samplingDefaults } from "./generationConfig.js";

const read = (config: unknown) =>
  samplingDefaults(
    memoryFiles("m", new Map([["generation_config.json", new TextEncoder().encode(JSON.stringify(config))]])),
  );

/** Every documented field of transformers' GenerationConfig, with the value that does nothing. */
const documented = {
  max_length: 20,
  max_new_tokens: null,
  min_length: 0,
  min_new_tokens: null,
  early_stopping: false,
  max_time: null,
  stop_strings: null,
  do_sample: false,
  num_beams: 1,
  num_beam_groups: 1,
  penalty_alpha: null,
  use_cache: true,
  cache_implementation: null,
  cache_config: null,
  temperature: 1,
  top_k: 50,
  top_p: 1,
  min_p: null,
  typical_p: 1,
  epsilon_cutoff: 0,
  eta_cutoff: 0,
  diversity_penalty: 0,
  repetition_penalty: 1,
  encoder_repetition_penalty: 1,
  length_penalty: 1,
  no_repeat_ngram_size: 0,
  bad_words_ids: null,
  force_words_ids: null,
  renormalize_logits: false,
  constraints: null,
  forced_bos_token_id: null,
  forced_eos_token_id: null,
  remove_invalid_values: false,
  exponential_decay_length_penalty: null,
  suppress_tokens: null,
  begin_suppress_tokens: null,
  sequence_bias: null,
  token_healing: false,
  guidance_scale: null,
  watermarking_config: null,
  num_return_sequences: 1,
  output_attentions: false,
  output_hidden_states: false,
  output_scores: false,
  output_logits: null,
  return_dict_in_generate: false,
  pad_token_id: 0,
  bos_token_id: 1,
  eos_token_id: [2, 3],
  encoder_no_repeat_ngram_size: 0,
  decoder_start_token_id: null,
  is_assistant: false,
  num_assistant_tokens: 20,
  dola_layers: null,
  prompt_lookup_num_tokens: null,
  transformers_version: "5.1.0",
};

describe("generation_config.json", () => {
  it("of Qwen2.5 gives what its makers sample with", async () => {
    const qwen = {
      do_sample: true,
      temperature: 0.7,
      top_p: 0.8,
      top_k: 20,
      repetition_penalty: 1.05,
      max_length: 32768,
    };
    expect(await read({ ...documented, ...qwen })).toEqual({
      sampling: { temperature: 0.7, topP: 0.8, topK: 20, repetitionPenalty: 1.05 },
      warnings: [],
    });
  });

  it("takes the most probable token without do_sample; the penalty counts", async () => {
    const { sampling } = await read({ temperature: 0.6, top_p: 0.9, repetition_penalty: 1.1 });
    expect(sampling).toEqual({ repetitionPenalty: 1.1 });
    expect((await read({ do_sample: true })).sampling).toEqual({ temperature: 1 });
  });

  it("a documented field that does nothing is not named", async () => {
    expect((await read(documented)).warnings).toEqual([]);
  });

  it.each([
    ["min_length", 10],
    ["min_new_tokens", 4],
    ["stop_strings", ["###"]],
    ["num_beams", 4],
    ["num_beam_groups", 2],
    ["penalty_alpha", 0.6],
    ["typical_p", 0.9],
    ["epsilon_cutoff", 0.01],
    ["eta_cutoff", 0.01],
    ["diversity_penalty", 0.5],
    ["encoder_repetition_penalty", 1.2],
    ["length_penalty", 2],
    ["no_repeat_ngram_size", 3],
    ["bad_words_ids", [[5]]],
    ["force_words_ids", [[5]]],
    ["forced_bos_token_id", 7],
    ["forced_eos_token_id", 7],
    ["exponential_decay_length_penalty", [5, 1.1]],
    ["suppress_tokens", [5]],
    ["begin_suppress_tokens", [5]],
    ["sequence_bias", [[[5], 1]]],
    ["guidance_scale", 2],
    ["dola_layers", "high"],
    ["a_field_of_tomorrow", 1],
  ])("%s, which would change a text, is named", async (field, value) => {
    const { warnings } = await read({ ...documented, [field]: value });
    expect(warnings.map((warning) => warning.field)).toEqual([field]);
    expect(warnings[0].file).toBe("m/generation_config.json");
  });

  it.each([
    [{ do_sample: "yes" }],
    [{ temperature: "hot" }],
    [{ top_p: 3 }],
    [{ top_k: -1 }],
    [{ repetition_penalty: 0 }],
    [[]],
  ])("%j is refused", async (config) => {
    await expect(read(config)).rejects.toThrow(FormatError);
  });

  it("says nothing where there is none", async () => {
    expect(await samplingDefaults(memoryFiles("m", new Map()))).toEqual({ sampling: {}, warnings: [] });
  });
});

import { quote } from "../core/index.js";
import { isJsonObject, type Warning } from "../io/index.js";
import type { TokenizerConfig } from "./tokenizerConfig.js";
import type { TokenizerDefinition } from "./tokenizerDefinition.js";

/** Fields of every kind of step of a tokenizer.json that are followed, or that change no token. */
const stepFields: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  normalizer: {
    Sequence: ["normalizers"],
    BertNormalizer: ["clean_text", "handle_chinese_chars", "strip_accents", "lowercase"],
    Strip: ["strip_left", "strip_right"],
    Prepend: ["prepend"],
    Replace: ["pattern", "content"],
    ...withoutFields("StripAccents NFC NFD NFKC NFKD Lowercase Precompiled"),
  },
  pre_tokenizer: {
    Sequence: ["pretokenizers"],
    ByteLevel: ["add_prefix_space", "trim_offsets", "use_regex"],
    Metaspace: ["replacement", "str_rep", "prepend_scheme", "add_prefix_space", "split"],
    Split: ["pattern", "behavior", "invert"],
    Punctuation: ["behavior"],
    Digits: ["individual_digits"],
    FixedLength: ["length"],
    Replace: ["pattern", "content"],
    ...withoutFields("BertPreTokenizer Whitespace WhitespaceSplit"),
  },
  post_processor: {
    Sequence: ["processors"],
    TemplateProcessing: ["single", "pair", "special_tokens"],
    BertProcessing: ["sep", "cls"],
    RobertaProcessing: ["sep", "cls", "trim_offsets", "add_prefix_space"],
    ByteLevel: ["add_prefix_space", "trim_offsets", "use_regex"],
  },
  decoder: {
    Sequence: ["decoders"],
    ByteLevel: ["add_prefix_space", "trim_offsets", "use_regex"],
    Metaspace: ["replacement", "str_rep", "prepend_scheme", "add_prefix_space", "split"],
    WordPiece: ["prefix", "cleanup"],
    BPEDecoder: ["suffix"],
    CTC: ["pad_token", "word_delimiter_token", "cleanup"],
    Replace: ["pattern", "content"],
    Strip: ["content", "start", "stop"],
    ...withoutFields("Fuse ByteFallback"),
  },
  model: {
    BPE: ["vocab", "merges", ..."unk_token fuse_unk byte_fallback ignore_merges end_of_word_suffix".split(" ")],
    Unigram: ["vocab", "unk_id", "byte_fallback"],
    WordPiece: ["vocab", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word"],
    WordLevel: ["vocab", "unk_token"],
  },
};
/** What holds the steps of a sequence. */
const inner = ["normalizers", "pretokenizers", "processors", "decoders"];

/** Fields beside the parts; truncation and padding are for batches, and whoever encodes one sets them. */
const topFields = new Set([...Object.keys(stepFields), "version", "truncation", "padding", "added_tokens"]);
const addedFields = new Set(["id", "content", "lstrip", "rstrip", "normalized", "special"]);

/** Fields of tokenizer_config.json that are followed when they have their type. */
const configTypes: Readonly<Record<string, "string" | "object">> = {
  added_tokens_decoder: "object",
  tokenizer_class: "string",
};
/** And fields that change no token: of batches, of how the tokenizer is loaded, of decoding (see `Tokenizer.decode`). */
const harmless = new Set(
  (
    "chat_template model_max_length padding_side truncation_side truncation_strategy truncation padding max_length stride " +
    "pad_to_multiple_of pad_token_type_id model_input_names return_token_type_ids clean_up_tokenization_spaces " +
    "spaces_between_special_tokens name_or_path special_tokens_map_file tokenizer_file vocab_file merges_file " +
    "processor_class image_processor_type feature_extractor_type auto_map use_fast backend is_local from_slow errors " +
    "use_default_system_prompt trust_remote_code local_files_only _commit_hash model_type tokenizer_type device_map " +
    "response_schema model_specific_special_tokens unsloth_version"
  ).split(" "),
);

/** What is asked of the tokenizer that was made of the files. */
interface Made {
  token_to_id(token: string): number | undefined;
  encode(text: string): { tokens: string[] };
}

/**
 * What a tokenizer's files say that is not followed here, or that two of them say differently. A field that is left out, null
 * or false says nothing.
 * @param made of them
 */
export function tokenizerWarnings(config: TokenizerConfig, source: TokenizerDefinition, made: Made): Warning[] {
  return [
    ...definitionWarnings(source),
    ...configWarnings(config, source, made),
    ...neighbourWarnings(config, (token) => made.token_to_id(token)),
  ];
}

function definitionWarnings({ file, definition }: TokenizerDefinition): Warning[] {
  const warnings: Warning[] = [];
  const unused = (field: string, value: unknown, why = "no step here follows it") => {
    if (!saysNothing(value)) warnings.push({ file, field, problem: `${quote(value)} is not used: ${why}` });
  };
  for (const [field, value] of Object.entries(definition)) if (!topFields.has(field)) unused(field, value);
  const addedTokens = (definition.added_tokens ?? []) as Record<string, unknown>[];
  for (const [i, token] of addedTokens.entries()) {
    for (const [field, value] of Object.entries(token)) {
      if (!addedFields.has(field))
        unused(`added_tokens.${i}.${field}`, value, `${quote(token.content)} is found anywhere`);
    }
  }
  const walk = (step: unknown, part: string, field: string) => {
    if (!isJsonObject(step)) return;
    const known = stepFields[part];
    const type = typeof step.type === "string" && Object.hasOwn(known, step.type) ? step.type : undefined;
    for (const [name, value] of Object.entries(step)) {
      if (inner.includes(name) && Array.isArray(value))
        for (const [i, each] of value.entries()) walk(each, part, `${field}.${name}.${i}`);
      if (name === "precompiled_charsmap" && type === "Precompiled")
        unused(`${field}.${name}`, value, "texts are put into the form NFKC, with SentencePiece's rules for spaces");
      else if (name !== "type" && type !== undefined && !known[type].includes(name)) unused(`${field}.${name}`, value);
    }
  };
  for (const part of Object.keys(stepFields)) walk(definition[part], part, part);
  return warnings;
}

function configWarnings(
  config: TokenizerConfig,
  { file, definition, taken }: TokenizerDefinition,
  made: Made,
): Warning[] {
  const { tokens } = made.encode("");
  const begins = tokens.length > 0 && tokens[0] === config.token("bos");
  const rest = begins ? tokens.slice(1) : tokens;
  /** What the tokenizer does, of what the config may say too. */
  const done: Readonly<Record<string, boolean>> = {
    add_prefix_space: [definition.normalizer, definition.pre_tokenizer].some(prefixesSpace),
    add_bos_token: begins,
    add_eos_token: rest.length > 0 && rest.at(-1) === config.token("eos"),
  };
  const warnings: Warning[] = [];
  for (const [field, value] of Object.entries(config.fields)) {
    const contradicts = typeof value === "boolean" && Object.hasOwn(done, field) && done[field] !== value;
    if ((saysNothing(value) && !contradicts) || harmless.has(field) || taken.has(field)) continue;
    if (config.isSpecial(field) || typeof value === configTypes[field] || done[field] === value) continue;
    const problem = `${quote(value)} is not used: ${file} says how texts become tokens`;
    warnings.push({ file: `${config.location}/tokenizer_config.json`, field, problem });
  }
  return warnings;
}

function neighbourWarnings(config: TokenizerConfig, idOf: (token: string) => number | undefined): Warning[] {
  const warnings: Warning[] = [];
  const warn = (file: string, field: string, value: unknown, why: string) =>
    warnings.push({ file, field, problem: `${quote(value)} is not used: ${why}` });
  const at = (name: string) => `${config.location}/${name}`;
  for (const [field, value] of Object.entries(config.specialTokens)) {
    if (!config.isSpecial(field) && !saysNothing(value))
      warn(at("special_tokens_map.json"), field, value, "it names no special token");
    const [map, own] = [config.contentOf(value), config.contentOf(config.fields[field])];
    if (map === undefined || own === undefined || map === own) continue;
    const [less, more] = ["special_tokens_map.json", "tokenizer_config.json"];
    if (config.listsAddedTokens) warn(at(less), field, map, `${more} says ${quote(own)}`);
    else warn(at(more), field, own, `${less} says ${quote(map)}`);
  }
  for (const { field, content, file } of config.specials()) {
    if (idOf(content) === undefined) warn(file, field, content, "the vocabulary has no such token");
  }
  for (const [content, id] of Object.entries(config.addedTokens)) {
    const there = idOf(content);
    const why = there === undefined ? "lists other added tokens" : `gives that token the id ${there}`;
    if (there !== id) warn(at("added_tokens.json"), quote(content), id, `tokenizer_config.json ${why}`);
  }
  return warnings;
}

/** Whether a step, or one inside of it, puts a space in front of a text. */
function prefixesSpace(step: unknown): boolean {
  if (!isJsonObject(step)) return false;
  if (step.type === "Metaspace") return step.prepend_scheme !== "never" && step.add_prefix_space !== false;
  if (step.type === "Prepend" || step.type === "ByteLevel")
    return step.type === "Prepend" || step.add_prefix_space === true;
  return inner.some((name) => Array.isArray(step[name]) && step[name].some(prefixesSpace));
}

const saysNothing = (value: unknown): boolean =>
  value === null ||
  value === undefined ||
  value === false ||
  value === "" ||
  value === 0 ||
  (typeof value === "object" && Object.keys(value).length === 0);

function withoutFields(types: string): Record<string, readonly string[]> {
  return Object.fromEntries(types.split(" ").map((type) => [type, []]));
}

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { FormatError } from "../core/index.js";
import { memoryFiles } from "../io/index.js";
import { loadChatTemplate } from "./chatTemplate.js";
import { loadTokenizer } from "./tokenizer.js";

type Files = Readonly<Record<string, unknown>>;
const bytesOf = (value: unknown) =>
  value instanceof Uint8Array
    ? value
    : new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));
const filesOf = (files: Files) =>
  memoryFiles("m", new Map(Object.entries(files).map(([name, value]) => [name, bytesOf(value)])));

const text = " Ab é <x> cab  ab<s> aü";
/** All that a tokenizer does with a text, and what it warns of, field by field. */
async function does(files: Files): Promise<{ does: unknown; warned: string[] }> {
  const tokenizer = await loadTokenizer(filesOf(files));
  const ids = [...tokenizer.encode(text)];
  const template = await loadChatTemplate(filesOf(files));
  const chat = template?.render([{ role: "user", content: "hi" }]);
  const { beginId, specialIds } = tokenizer;
  const decoded = [false, true].map((skipSpecialTokens) => tokenizer.decode(ids, { skipSpecialTokens }));
  return { does: [ids, decoded, beginId, [...specialIds], chat], warned: tokenizer.warnings.map(({ field }) => field) };
}
/** used: it does something else; named: it does the same and warns of it; without effect: neither; refused. */
type Outcome = "used" | "named" | "without effect" | "refused";
async function outcomeOf(without: Files, given: Files, field: string): Promise<Outcome> {
  const before = await does(without);
  const after = await does(given).catch((error: unknown) => error);
  if (after instanceof FormatError) return "refused";
  if (after instanceof Error) throw after;
  const { does: now, warned } = after as typeof before;
  if (warned.includes(field)) return "named";
  expect(warned.filter((name) => !before.warned.includes(name))).toEqual([]);
  return JSON.stringify(now) === JSON.stringify(before.does) ? "without effect" : "used";
}

const tokens = [
  "<unk>",
  "<s>",
  "</s>",
  "<x>",
  "A",
  "a",
  "b",
  "c",
  "▁",
  "Ġ",
  "ab",
  "▁a",
  "é",
  "e",
  " ",
  "ÃĤ",
  "##b",
  "b@",
];
const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
const special = (content: string) => ({ id: vocab[content], content, single_word: false, special: true });
const bpe = { type: "BPE", vocab, merges: [["a", "b"]], unk_token: "<unk>" };
const plain = {
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: ["<unk>", "<s>", "</s>"].map(special),
  normalizer: null,
  pre_tokenizer: { type: "Split", pattern: { String: " " }, behavior: "Isolated", invert: false },
  post_processor: null,
  decoder: { type: "Fuse" },
  model: bpe,
};

describe("fields of tokenizer_config.json", () => {
  const sentencePiece = new Uint8Array(readFileSync(new URL("fixtures/bpe.model", import.meta.url)));
  /** Every field that transformers documents or writes: [value, beside tokenizer.json, beside tokenizer.model]. */
  const documented: Record<string, [value: unknown, json: Outcome, model: Outcome]> = {
    add_bos_token: [true, "named", "without effect"],
    add_eos_token: [true, "named", "used"],
    add_prefix_space: [true, "named", "without effect"],
    added_tokens_decoder: [{ 3: { content: "<x>", special: true } }, "used", "refused"],
    additional_special_tokens: [["<x>"], "used", "named"],
    extra_special_tokens: [{ image_token: "<x>" }, "used", "named"],
    bos_token: [{ content: "</s>" }, "used", "used"],
    eos_token: ["<x>", "used", "named"],
    unk_token: ["<x>", "used", "named"],
    pad_token: ["<x>", "used", "named"],
    sep_token: ["<x>", "used", "named"],
    cls_token: ["<x>", "used", "named"],
    mask_token: ["<x>", "used", "named"],
    image_token: ["<x>", "used", "named"],
    chat_template: ["{{ messages[0].content }}", "used", "used"],
    legacy: [false, "without effect", "used"],
    split_special_tokens: [true, "named", "named"],
    do_lower_case: [true, "named", "named"],
    keep_accents: [true, "named", "named"],
    strip_accents: [true, "named", "named"],
    remove_space: [true, "named", "named"],
    do_lowercase_and_remove_accent: [true, "named", "named"],
    tokenize_chinese_chars: [true, "named", "named"],
    fix_mistral_regex: [true, "named", "named"],
    sp_model_kwargs: [{ enable_sampling: true }, "named", "named"],
    target_lang: ["de", "named", "named"],
    // Of batches, of loading, of decoding.
    ...Object.fromEntries(
      Object.entries({
        clean_up_tokenization_spaces: true,
        spaces_between_special_tokens: true,
        model_max_length: 512,
        model_input_names: ["input_ids"],
        padding_side: "left",
        truncation_side: "left",
        pad_to_multiple_of: 8,
        tokenizer_class: "PreTrainedTokenizerFast",
        processor_class: "AutoProcessor",
        auto_map: { AutoTokenizer: ["x.y", null] },
        name_or_path: "org/name",
        use_default_system_prompt: true,
        errors: "replace",
      }).map(([field, value]) => [field, [value, "without effect", "without effect"] as [unknown, Outcome, Outcome]]),
    ),
  };

  it.each(Object.entries(documented))("%s", async (field, [value, json, model]) => {
    const config = { "tokenizer_config.json": { [field]: value } };
    const [own, slow] = [{ "tokenizer.json": plain }, { "tokenizer.model": sentencePiece }];
    expect(await outcomeOf(own, { ...own, ...config }, field)).toBe(json);
    expect(await outcomeOf(slow, { ...slow, ...config }, field)).toBe(model);
  });

  it("and those that agree with tokenizer.json are not named", async () => {
    const post = { type: "TemplateProcessing", single: [{ SpecialToken: { id: "<s>" } }, { Sequence: { id: "A" } }] };
    const config = { add_bos_token: true, add_eos_token: false, add_prefix_space: false, bos_token: "<s>" };
    const files = { "tokenizer.json": { ...plain, post_processor: post }, "tokenizer_config.json": config };
    expect((await does(files)).warned).toEqual([]);
    const contrary = { ...config, add_bos_token: false, add_prefix_space: true };
    expect((await does({ ...files, "tokenizer_config.json": contrary })).warned).toEqual([
      "add_bos_token",
      "add_prefix_space",
    ]);
  });

  it("puts the space of SentencePiece in front of the text alone where legacy is false", async () => {
    const idsOf = async (legacy: boolean) => {
      const files = { "tokenizer.model": sentencePiece, "tokenizer_config.json": { legacy } };
      const tokenizer = await loadTokenizer(filesOf(files));
      return Array.from(tokenizer.encode("a</s>a", { addSpecialTokens: false }), (id) => tokenizer.tokenOf(id));
    };
    expect(await idsOf(true)).toEqual(["▁a", "</s>", "▁a"]);
    expect(await idsOf(false)).toEqual(["▁a", "</s>", "a"]);
  });
});

describe("fields of special_tokens_map.json and added_tokens.json", () => {
  const named = async (files: Files) =>
    (await loadTokenizer(filesOf({ "tokenizer.json": plain, ...files }))).warnings.map(
      ({ file, field, problem }) => `${file.slice(2)} ${field}: ${problem}`,
    );
  const config = { bos_token: "<s>", added_tokens_decoder: { 1: special("<s>") } };

  it("the map counts before a config that lists no added tokens, as in transformers", async () => {
    const map = { "special_tokens_map.json": { bos_token: "</s>" } };
    const beginOf = async (files: Files) =>
      (await loadTokenizer(filesOf({ "tokenizer.json": plain, ...map, ...files }))).beginId;
    expect(await beginOf({ "tokenizer_config.json": { bos_token: "<s>" } })).toBe(2);
    expect(await beginOf({ "tokenizer_config.json": config })).toBe(1);
    expect(await named({ ...map, "tokenizer_config.json": { bos_token: "<s>" } })).toEqual([
      'tokenizer_config.json bos_token: "<s>" is not used: special_tokens_map.json says "</s>"',
    ]);
    expect(await named({ ...map, "tokenizer_config.json": config })).toEqual([
      'special_tokens_map.json bos_token: "</s>" is not used: tokenizer_config.json says "<s>"',
    ]);
  });

  it("names what is no special token, what the vocabulary lacks, and an id that does not count", async () => {
    expect(await named({ "special_tokens_map.json": { begin: "<s>", eos_token: "<end>" } })).toEqual([
      'special_tokens_map.json begin: "<s>" is not used: it names no special token',
      'special_tokens_map.json eos_token: "<end>" is not used: the vocabulary has no such token',
    ]);
    expect(await named({ "added_tokens.json": { "<y>": 40 }, "tokenizer_config.json": config })).toEqual([
      'added_tokens.json "<y>": 40 is not used: tokenizer_config.json lists other added tokens',
    ]);
  });
});

describe("fields of tokenizer.json", () => {
  const marks = { String: "b" };
  const template = (item: object, ids: number[]) => ({
    type: "TemplateProcessing",
    single: [item, { Sequence: { id: "A", type_id: 0 } }],
    special_tokens: { BEGIN: { id: "BEGIN", ids, tokens: ["any"] } },
  });
  const begin = { SpecialToken: { id: "BEGIN", type_id: 0 } };
  const wordPiece = { type: "WordPiece", vocab, unk_token: "<unk>", continuing_subword_prefix: "##" };
  const unigram = { type: "Unigram", vocab: tokens.map((token) => [token, -1]), unk_id: 0, byte_fallback: false };

  /** Part, a step without the field, the field with a value that is not the step's own, and what becomes of it. */
  const documented: [part: string, without: object, field: object, outcome: Outcome][] = [
    ["normalizer", { type: "BertNormalizer" }, { lowercase: true }, "used"],
    ["normalizer", { type: "BertNormalizer" }, { strip_accents: true }, "used"],
    ["normalizer", { type: "BertNormalizer" }, { handle_chinese_chars: true }, "without effect"],
    ["normalizer", { type: "BertNormalizer" }, { clean_text: true }, "without effect"],
    ["normalizer", { type: "Strip" }, { strip_left: true }, "used"],
    ["normalizer", { type: "Strip" }, { strip_right: true }, "without effect"],
    ["normalizer", { type: "Prepend", prepend: "" }, { prepend: "c" }, "used"],
    ["normalizer", { type: "Replace", pattern: marks, content: "b" }, { content: "$&c" }, "used"],
    ["normalizer", { type: "Replace", pattern: marks, content: "c" }, { pattern: { String: "a" } }, "used"],
    ["normalizer", { type: "Precompiled" }, { precompiled_charsmap: "AAAA" }, "named"],
    ["normalizer", { type: "Lowercase" }, { locale: "tr" }, "named"],
    ["normalizer", { type: "Lowercase" }, { type: "Nmt" }, "refused"],
    ["normalizer", { type: "Lowercase" }, { type: "ByteLevel" }, "refused"],
    ["pre_tokenizer", { type: "Split", pattern: marks, behavior: "Isolated" }, { behavior: "Removed" }, "used"],
    ["pre_tokenizer", { type: "Split", pattern: marks, behavior: "Isolated" }, { behavior: "Sometimes" }, "refused"],
    ["pre_tokenizer", { type: "Split", pattern: marks, behavior: "Removed" }, { invert: true }, "used"],
    ["pre_tokenizer", { type: "Split", pattern: marks, behavior: "Removed" }, { pattern: { Regex: "a" } }, "used"],
    ["pre_tokenizer", { type: "ByteLevel" }, { add_prefix_space: true }, "without effect"],
    ["pre_tokenizer", { type: "ByteLevel" }, { use_regex: false }, "without effect"],
    ["pre_tokenizer", { type: "ByteLevel" }, { trim_offsets: true }, "without effect"],
    ["pre_tokenizer", { type: "Digits" }, { individual_digits: true }, "without effect"],
    ["pre_tokenizer", { type: "WhitespaceSplit" }, { type: "UnicodeScripts" }, "refused"],
    ["pre_tokenizer", { type: "WhitespaceSplit" }, { type: "CharDelimiterSplit", delimiter: "b" }, "refused"],
    ["post_processor", template(begin, [1]), { special_tokens: { BEGIN: { ids: [2] } } }, "used"],
    ["post_processor", template(begin, [1]), { special_tokens: { BEGIN: { ids: [1, 2] } } }, "used"],
    ["post_processor", template(begin, [1]), { special_tokens: { BEGIN: { ids: [99] } } }, "refused"],
    ["post_processor", template(begin, [1]), { single: [{ Sequence: { id: "A" } }] }, "used"],
    ["post_processor", template(begin, [1]), { pair: [] }, "without effect"],
    ["post_processor", { type: "RobertaProcessing", sep: ["any", 2], cls: ["any", 1] }, { cls: ["any", 2] }, "used"],
    ["post_processor", { type: "RobertaProcessing", sep: ["any", 2], cls: ["any", 1] }, { sep: ["any", 1] }, "used"],
    ["post_processor", { type: "BertProcessing", sep: ["any", 2], cls: ["any", 1] }, { sep: ["any", 99] }, "refused"],
    ["post_processor", { type: "ByteLevel" }, { type: "Nonesuch" }, "refused"],
    ["decoder", { type: "Strip", content: "a", start: 0, stop: 0 }, { start: 1 }, "used"],
    ["decoder", { type: "Strip", content: "a", start: 0, stop: 0 }, { stop: 1 }, "used"],
    ["decoder", { type: "Strip", content: "a", start: 1, stop: 1 }, { content: "b" }, "used"],
    ["decoder", { type: "Replace", pattern: marks, content: "b" }, { content: "c" }, "used"],
    ["decoder", { type: "WordPiece", prefix: "##", cleanup: false }, { prefix: "a" }, "used"],
    ["decoder", { type: "BPEDecoder", suffix: "@" }, { suffix: "b" }, "used"],
    ["decoder", { type: "Fuse" }, { type: "Nonesuch" }, "refused"],
    ["model", bpe, { merges: [] }, "used"],
    ["model", bpe, { unk_token: "c" }, "used"],
    ["model", { ...bpe, unk_token: "c" }, { fuse_unk: true }, "used"],
    ["model", { ...bpe, merges: [] }, { ignore_merges: true }, "used"],
    ["model", bpe, { end_of_word_suffix: "@" }, "used"],
    ["model", bpe, { continuing_subword_prefix: "##" }, "refused"],
    ["model", bpe, { dropout: 0.1 }, "named"],
    ["model", wordPiece, { continuing_subword_prefix: "" }, "used"],
    ["model", wordPiece, { max_input_chars_per_word: 1 }, "used"],
    ["model", { type: "WordLevel", vocab, unk_token: "<unk>" }, { unk_token: "c" }, "used"],
    ["model", unigram, { unk_id: 7 }, "used"],
    ["model", unigram, { nbest_size: 3 }, "named"],
  ];

  it.each(
    documented.map(
      ([part, step, field, outcome]) =>
        [part, JSON.stringify(step).slice(0, 50), JSON.stringify(field), outcome, step, field] as const,
    ),
  )("%s %s with %s is %s", async (part, _step, _field, outcome, without, field) => {
    const files = (step: object) => ({ "tokenizer.json": { ...plain, [part]: step } });
    const name = `${part}.${Object.keys(field)[0]}`;
    expect(await outcomeOf(files(without), files({ ...without, ...field }), name)).toBe(outcome);
  });

  it.each([
    ["single_word", "named"],
    ["lstrip", "used"],
    ["rstrip", "used"],
    ["special", "used"],
    ["normalized", "without effect"],
  ] as const)("added_tokens.%s is %s", async (field, outcome) => {
    const files = (flags: object) => ({
      "tokenizer.json": { ...plain, added_tokens: [{ id: 3, content: "<x>", special: false, ...flags }] },
    });
    expect(await outcomeOf(files({}), files({ [field]: true }), `added_tokens.0.${field}`)).toBe(outcome);
  });

  it.each([
    ["truncation", { max_length: 2, strategy: "LongestFirst", stride: 0, direction: "Right" }, "without effect"],
    ["padding", { strategy: { Fixed: 64 }, pad_id: 0, pad_token: "<unk>" }, "without effect"],
    ["sampling", { alpha: 0.1 }, "named"],
  ] as const)("%s of the file itself is %s", async (field, value, outcome) => {
    const files = (more: object) => ({ "tokenizer.json": { ...plain, ...more } });
    expect(await outcomeOf(files({}), files({ [field]: value }), field)).toBe(outcome);
  });
});

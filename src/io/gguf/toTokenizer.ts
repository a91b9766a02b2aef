import { FormatError, quote } from "../../core/index.js";
import {
  addedTokens,
  byteLevelParts,
  idsOf,
  preTokenizerNamed,
  preTokenizers,
  type SentencePieces,
  sentencePieceBpeParts,
  sentencePieceUnigramParts,
  surround,
} from "../tokenizer/index.js";
import type { Metadata } from "./metadata.js";
import { continuation, wordStart } from "./wordPiece.js";

/** `tokenizer.json` and `tokenizer_config.json`, to be read like the files. */
export interface TokenizerFiles {
  tokenizer: object;
  config: object;
}

const prefix = "tokenizer.ggml.";

/**
 * Keys that change no token: those of the kinds of tokenizers that this file is not of, which llama.cpp does not look at
 * either, tokens for filling in text, and the file that it was made from.
 */
const harmless = new RegExp(
  "^tokenizer\\.(?:huggingface\\.json|ggml\\.(?:token_type_count|scores|merges|pre|precompiled_charsmap|add_space_prefix|" +
    "remove_extra_whitespaces|(?:fim_)?(?:prefix|suffix|middle|pre|suf|mid|pad|rep|sep)_token_id|eot_token_id|eom_token_id))$",
);

interface Kind {
  /** The parts of a tokenizer.json. */
  parts(metadata: Metadata, tokens: readonly string[]): object;
  /** Which tokens are written around a text where the file does not say. */
  adds: { bos: boolean; eos: boolean };
  /** Those tokens, where they are not begin and end of a text: by the first key that is there, else by what they are called. */
  around?: readonly { keys: readonly string[]; token: string }[];
}

/** Every kind of tokenizer (`tokenizer.ggml.model`). */
const kinds: Readonly<Record<string, Kind>> = {
  /** Byte-level BPE. */
  gpt2: {
    adds: { bos: false, eos: false },
    parts(metadata, tokens) {
      const merges = metadata.require(metadata.strings(`${prefix}merges`), `${prefix}merges`);
      const pre = metadata.string(`${prefix}pre`) ?? "default";
      const row = preTokenizerNamed(pre);
      if (row === undefined) {
        throw new FormatError({
          file: metadata.file,
          field: `${prefix}pre`,
          problem: `pre-tokenizer ${quote(pre)} is not known`,
          expected: `one of ${preTokenizers.flatMap(({ names }) => names).join(", ")}`,
          hint: "Take the model in Hugging Face layout, whose tokenizer.json spells the rules out",
        });
      }
      return byteLevelParts(idsOf(tokens), merges, row);
    },
  },

  /** SentencePiece with BPE. */
  llama: {
    adds: { bos: true, eos: false },
    parts: (metadata, tokens) =>
      sentencePieceBpeParts({ ...sentencePieces(metadata, tokens), compatibilityForm: false, byteFallback: true }),
  },

  /** WordPiece, as llama.cpp has it: in lower case, without accents. */
  bert: {
    adds: { bos: true, eos: true },
    around: [
      { keys: ["cls", "bos"], token: "[CLS]" },
      { keys: ["seperator", "eos"], token: "[SEP]" },
    ],
    parts: (metadata, tokens) => ({
      normalizer: {
        type: "BertNormalizer",
        clean_text: true,
        handle_chinese_chars: true,
        strip_accents: null,
        lowercase: true,
      },
      pre_tokenizer: { type: "BertPreTokenizer" },
      model: {
        type: "WordPiece",
        unk_token: tokens[metadata.number(`${prefix}unknown_token_id`) ?? tokens.indexOf("[UNK]")],
        continuing_subword_prefix: continuation,
        max_input_chars_per_word: 100,
        vocab: Object.fromEntries(idsOf(tokens.map(wordPieceOf))),
      },
      decoder: { type: "WordPiece", prefix: continuation, cleanup: true },
    }),
  },

  /** SentencePiece with a unigram model. */
  t5: {
    adds: { bos: false, eos: true },
    parts: (metadata, tokens) =>
      sentencePieceUnigramParts({
        ...sentencePieces(metadata, tokens),
        compatibilityForm: metadata.has(`${prefix}precompiled_charsmap`),
        byteFallback: tokens.includes("<0x00>"),
      }),
  },
};

/** Tokens of WordPiece as a vocabulary of BERT has them: files mark where a word begins, and not where it goes on. */
const wordPieceOf = (token: string): string => {
  if (/^\[.*\]$/s.test(token)) return token;
  return token.startsWith(wordStart) ? token.slice(wordStart.length) : continuation + token;
};

const sentencePieces = (
  metadata: Metadata,
  tokens: readonly string[],
): Omit<SentencePieces, "compatibilityForm" | "byteFallback"> => ({
  file: metadata.file,
  fields: { tokens: `${prefix}tokens`, scores: `${prefix}scores` },
  tokens,
  scores: metadata.require(metadata.numbers(`${prefix}scores`), `${prefix}scores`),
  unknown: metadata.number(`${prefix}unknown_token_id`),
  leadingSpace: metadata.boolean(`${prefix}add_space_prefix`) ?? true,
  collapseSpaces: metadata.boolean(`${prefix}remove_extra_whitespaces`) ?? false,
});

/**
 * The tokenizer that the metadata holds; undefined when there is none.
 * @throws FormatError, also for kinds of tokenizers that are not in the table
 */
export function tokenizerFromMetadata(metadata: Metadata): TokenizerFiles | undefined {
  const name = metadata.string(`${prefix}model`);
  if (name === undefined || name === "none") return undefined;
  if (!Object.hasOwn(kinds, name)) {
    throw new FormatError({
      file: metadata.file,
      field: `${prefix}model`,
      problem: `tokenizer ${quote(name)} is not supported`,
      expected: `one of ${Object.keys(kinds).join(", ")}`,
    });
  }
  const kind = kinds[name];
  const tokens = metadata.require(metadata.strings(`${prefix}tokens`), `${prefix}tokens`);
  const types = metadata.numbers(`${prefix}token_type`) ?? [];
  const tokenAt = (which: string) => {
    const id = metadata.number(`${prefix}${which}_token_id`);
    return id === undefined ? undefined : tokens[id];
  };
  const adds = (which: "bos" | "eos") => metadata.boolean(`${prefix}add_${which}_token`) ?? kind.adds[which];
  const [begin, end] = [tokenAt("bos"), tokenAt("eos")];
  const [first, last] = kind.around?.map(({ keys, token }) => {
    return keys.map(tokenAt).find((found) => found !== undefined) ?? tokens.find((one) => one === token);
  }) ?? [begin, end];
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    clean_up_tokenization_spaces: false,
    bos_token: begin,
    eos_token: end,
    unk_token: tokenAt("unknown"),
    pad_token: tokenAt("padding"),
    // Misspelt in the format itself.
    sep_token: tokenAt("seperator") ?? tokenAt("separator"),
    cls_token: tokenAt("cls") ?? (kind.around && first),
    mask_token: tokenAt("mask"),
    chat_template: chatTemplates(metadata),
  };
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: addedTokens(tokens, types),
    ...kind.parts(metadata, tokens),
    post_processor: surround(adds("bos") ? first : undefined, adds("eos") ? last : undefined, idsOf(tokens)),
  };
  // What is left goes along, to be named like a field of tokenizer_config.json that nothing reads.
  const rest = Object.entries(metadata.unread("tokenizer.")).filter(([key]) => !harmless.test(key));
  return { tokenizer, config: { ...config, ...Object.fromEntries(rest) } };
}

export const chatTemplateKey = "tokenizer.chat_template";
export const chatTemplateNamesKey = "tokenizer.chat_templates";

/** `chat_template` of tokenizer_config.json: one text, or a list where there are further ones. */
function chatTemplates(metadata: Metadata): string | object[] | undefined {
  const preset = metadata.string(chatTemplateKey);
  const others = (metadata.strings(chatTemplateNamesKey) ?? []).slice(0, 64).flatMap((name) => {
    const template = metadata.string(`${chatTemplateKey}.${name}`);
    return template === undefined ? [] : [{ name, template }];
  });
  if (others.length === 0) return preset;
  return preset === undefined ? others : [{ name: "default", template: preset }, ...others];
}

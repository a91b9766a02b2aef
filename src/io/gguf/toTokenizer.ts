import { FormatError, quote } from "../../core/index.js";
import { mergesFromScores } from "./mergesFromScores.js";
import type { Metadata } from "./metadata.js";
import { preTokenizerNamed, preTokenizers } from "./preTokenizers.js";

/** `tokenizer.json` and `tokenizer_config.json`, to be read like the files. */
export interface TokenizerFiles {
  tokenizer: object;
  config: object;
}

/** Kinds of tokens in `tokenizer.ggml.token_type`. */
export const tokenTypes = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

const prefix = "tokenizer.ggml.";
const spaceMark = "\u2581";

interface Vocabulary {
  tokens: readonly string[];
  /** Token to id, of all but tokens that stand twice. */
  ids: ReadonlyMap<string, number>;
}

/** How each kind of tokenizer (`tokenizer.ggml.model`) becomes the parts of a tokenizer.json. */
const kinds: Readonly<Record<string, (metadata: Metadata, vocabulary: Vocabulary) => object>> = {
  gpt2(metadata, { ids }) {
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
    return {
      normalizer: null,
      pre_tokenizer: row.rules,
      decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
      model: bpe(ids, merges, { ignore_merges: row.ignoreMerges ?? false }),
    };
  },

  /** SentencePiece: pairs are merged in the order of their scores; a leading space is written as a mark. */
  llama(metadata, { tokens, ids }) {
    const scores = metadata.require(metadata.numbers(`${prefix}scores`), `${prefix}scores`);
    if (scores.length !== tokens.length) {
      throw new FormatError({
        file: metadata.file,
        field: `${prefix}scores`,
        problem: `${scores.length} scores for ${tokens.length} tokens`,
      });
    }
    const leadingSpace = metadata.boolean(`${prefix}add_space_prefix`) ?? true;
    const replace = { type: "Replace", pattern: { String: " " }, content: spaceMark };
    const unknown = metadata.number(`${prefix}unknown_token_id`);
    return {
      normalizer: {
        type: "Sequence",
        normalizers: [...(leadingSpace ? [{ type: "Prepend", prepend: spaceMark }] : []), replace],
      },
      pre_tokenizer: null,
      decoder: {
        type: "Sequence",
        decoders: [
          { type: "Replace", pattern: { String: spaceMark }, content: " " },
          { type: "ByteFallback" },
          { type: "Fuse" },
          ...(leadingSpace ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
        ],
      },
      model: bpe(ids, mergesFromScores(metadata.file, ids, scores), {
        byte_fallback: true,
        fuse_unk: true,
        unk_token: unknown === undefined ? null : (tokens[unknown] ?? null),
      }),
    };
  },
};

const bpe = (ids: ReadonlyMap<string, number>, merges: readonly (string | string[])[], options: object) => ({
  type: "BPE",
  dropout: null,
  unk_token: null,
  continuing_subword_prefix: null,
  end_of_word_suffix: null,
  fuse_unk: false,
  byte_fallback: false,
  ignore_merges: false,
  ...options,
  vocab: Object.fromEntries(ids),
  merges,
});

/**
 * The tokenizer that the metadata holds; undefined when there is none.
 * @throws FormatError, also for kinds of tokenizers other than byte-level BPE and SentencePiece BPE
 */
export function tokenizerFromMetadata(metadata: Metadata): TokenizerFiles | undefined {
  const kind = metadata.string(`${prefix}model`);
  if (kind === undefined || kind === "none") return undefined;
  if (!Object.hasOwn(kinds, kind)) {
    throw new FormatError({
      file: metadata.file,
      field: `${prefix}model`,
      problem: `tokenizer ${quote(kind)} is not supported`,
      expected: `one of ${Object.keys(kinds).join(", ")}`,
    });
  }
  const tokens = metadata.require(metadata.strings(`${prefix}tokens`), `${prefix}tokens`);
  const types = metadata.numbers(`${prefix}token_type`) ?? [];
  const ids = new Map<string, number>();
  for (const [id, token] of tokens.entries()) if (!ids.has(token)) ids.set(token, id);

  const tokenAt = (name: string) => {
    const id = metadata.number(`${prefix}${name}_token_id`);
    return id === undefined ? undefined : tokens[id];
  };
  const adds = (name: string, preset: boolean) => metadata.boolean(`${prefix}add_${name}_token`) ?? preset;
  const [begin, end] = [tokenAt("bos"), tokenAt("eos")];
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    clean_up_tokenization_spaces: false,
    bos_token: begin,
    eos_token: end,
    unk_token: tokenAt("unknown"),
    pad_token: tokenAt("padding"),
    chat_template: metadata.string("tokenizer.chat_template"),
  };
  const added = tokens.flatMap((content, id) => {
    const special = types[id] === tokenTypes.control || types[id] === tokenTypes.unknown;
    if (!special && types[id] !== tokenTypes.userDefined) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    ...kinds[kind](metadata, { tokens, ids }),
    post_processor: template(
      adds("bos", kind === "llama") ? begin : undefined,
      adds("eos", false) ? end : undefined,
      ids,
    ),
  };
  return { tokenizer, config };
}

/** Adds a token before and after a text. */
function template(begin: string | undefined, end: string | undefined, ids: ReadonlyMap<string, number>): object | null {
  const tokens = [begin, end].filter((token) => token !== undefined);
  if (tokens.length === 0) return null;
  const special = (token: string | undefined) =>
    token === undefined ? [] : [{ SpecialToken: { id: token, type_id: 0 } }];
  const around = (sequence: string) => [...special(begin), { Sequence: { id: sequence, type_id: 0 } }, ...special(end)];
  return {
    type: "TemplateProcessing",
    single: around("A"),
    pair: [...around("A"), ...around("B")],
    special_tokens: Object.fromEntries(
      tokens.map((token) => [token, { id: token, ids: [ids.get(token)!], tokens: [token] }]),
    ),
  };
}

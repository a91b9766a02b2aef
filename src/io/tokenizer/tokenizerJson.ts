import { FormatError } from "../../core/index.js";
import { mergesFromScores } from "./mergesFromScores.js";
import type { PreTokenizer } from "./preTokenizers.js";

/**
 * Tokenizers of other formats (GGUF metadata, `tokenizer.model`, `vocab.json` with `merges.txt`) written as the parts of a
 * `tokenizer.json`, so that one reader and one implementation serve them all.
 */

/** Kinds of tokens; the same numbers in SentencePiece models and in `tokenizer.ggml.token_type`. */
export const tokenTypes = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

const spaceMark = "\u2581";

/** Token to id; of tokens that stand twice the first counts. */
export function idsOf(tokens: readonly string[]): Map<string, number> {
  const ids = new Map<string, number>();
  for (const [id, token] of tokens.entries()) if (!ids.has(token)) ids.set(token, id);
  return ids;
}

/** Byte-level BPE, as of GPT-2. */
export const byteLevelParts = (
  ids: ReadonlyMap<string, number>,
  merges: readonly (string | string[])[],
  { rules, ignoreMerges = false }: Pick<PreTokenizer, "rules" | "ignoreMerges">,
) => ({
  normalizer: null,
  pre_tokenizer: rules,
  decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: bpe(ids, merges, { ignore_merges: ignoreMerges }),
});

/** What a SentencePiece vocabulary is made of. */
export interface SentencePieces {
  /** For messages: the file, and what it calls the tokens and their scores. */
  file: string;
  fields: { tokens: string; scores: string };
  tokens: readonly string[];
  /** One per token. */
  scores: ArrayLike<number>;
  /** The id of the token for what is not in the vocabulary. */
  unknown: number | undefined;
  /** A space is written in front of a text. */
  leadingSpace: boolean;
  /** Only in front of the whole text, not of every piece between special tokens. Default false. */
  leadingSpaceOnce?: boolean;
  /** Spaces at both ends go, and runs of them become one. */
  collapseSpaces: boolean;
  /** Texts are put into compatibility form (NFKC) first. */
  compatibilityForm: boolean;
  /** Characters that are in no token become tokens of their bytes. */
  byteFallback: boolean;
}

const replace = (pattern: object, content: string) => ({ type: "Replace", pattern, content });
const spacesAsMarks = replace({ String: " " }, spaceMark);
const marksAsSpaces = replace({ String: spaceMark }, " ");

/** How a text becomes marked words and back, with either model. */
function spelling({ compatibilityForm, collapseSpaces, leadingSpace, leadingSpaceOnce }: SentencePieces): object {
  const collapse = [{ type: "Strip", strip_left: true, strip_right: true }, replace({ Regex: " {2,}" }, " ")];
  const normalizers = [
    ...(compatibilityForm ? [{ type: "Precompiled", precompiled_charsmap: null }] : []),
    ...(collapseSpaces ? collapse : []),
    ...(leadingSpaceOnce ? [] : [...(leadingSpace ? [{ type: "Prepend", prepend: spaceMark }] : []), spacesAsMarks]),
  ];
  const scheme = leadingSpace ? "first" : "never";
  const marks = { type: "Metaspace", replacement: spaceMark, prepend_scheme: scheme, split: false };
  const strip = leadingSpace ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : [];
  return {
    normalizer: { type: "Sequence", normalizers },
    pre_tokenizer: leadingSpaceOnce ? marks : null,
    decoder: { type: "Sequence", decoders: [marksAsSpaces, { type: "ByteFallback" }, { type: "Fuse" }, ...strip] },
  };
}

/**
 * SentencePiece with BPE: pairs are merged in the order of their scores; a space is written as a mark.
 * @throws FormatError
 */
export function sentencePieceBpeParts(pieces: SentencePieces): object {
  checkScores(pieces);
  const { file, fields, tokens, scores, unknown, byteFallback } = pieces;
  const ids = idsOf(tokens);
  return {
    ...spelling(pieces),
    model: bpe(ids, mergesFromScores(file, fields.tokens, ids, scores), {
      byte_fallback: byteFallback,
      fuse_unk: true,
      unk_token: unknown === undefined ? null : (tokens[unknown] ?? null),
    }),
  };
}

/**
 * SentencePiece with a unigram model (arXiv 1808.06226): the split of a text with the best sum of scores.
 * @throws FormatError, also without a token for what is unknown
 */
export function sentencePieceUnigramParts(pieces: SentencePieces): object {
  checkScores(pieces);
  const { file, fields, tokens, scores, unknown, byteFallback } = pieces;
  if (unknown === undefined || tokens[unknown] === undefined) {
    throw new FormatError({
      file,
      field: fields.tokens,
      problem: "a unigram vocabulary without a token for unknown text",
    });
  }
  return {
    ...spelling(pieces),
    model: {
      type: "Unigram",
      unk_id: unknown,
      byte_fallback: byteFallback,
      vocab: tokens.map((token, id) => [token, scores[id]]),
    },
  };
}

function checkScores({ file, fields, tokens, scores }: SentencePieces): void {
  if (scores.length === tokens.length) return;
  throw new FormatError({ file, field: fields.scores, problem: `${scores.length} scores for ${tokens.length} tokens` });
}

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

/** Tokens that a text is cut at before anything else: those of control and those of the maker's own. */
export const addedTokens = (tokens: readonly string[], types: ArrayLike<number>) =>
  tokens.flatMap((content, id) => {
    const special = types[id] === tokenTypes.control || types[id] === tokenTypes.unknown;
    if (!special && types[id] !== tokenTypes.userDefined) return [];
    return [addedToken(id, content, special)];
  });

/** An entry of `added_tokens` of tokenizer.json: a token that is matched as it stands, before anything else. */
export const addedToken = (id: number, content: string, special: boolean) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special,
});

/** A post-processor that writes a token before and one after a text. */
export function surround(
  begin: string | undefined,
  end: string | undefined,
  ids: ReadonlyMap<string, number>,
): object | null {
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

import { quote, UsageError } from "../../core/index.js";
import { isJsonObject } from "../json.js";
import { preTokenizerLike, tokenTypes } from "../tokenizer/index.js";
import type { TypedValue } from "./headerBytes.js";
import { continuation, wordStart } from "./wordPiece.js";

interface Token {
  id: number;
  content: string;
  special: boolean;
}

/** What is read of a tokenizer.json; the rest is looked at where it matters. */
interface Definition {
  model: { type: string; vocab: Record<string, number>; merges: string[] };
  added: Token[];
  raw: Record<string, unknown>;
}

const prefix = "tokenizer.ggml.";

/**
 * The keys that hold a tokenizer.
 * @param tokenizer parsed tokenizer.json, already accepted by `loadTokenizer`
 * @param config parsed tokenizer_config.json
 * @param vocabSize rows of the embedding; ids without a token get an unused one
 * @param ids begin and end of text of config.json, for tokenizers that name none
 * @throws UsageError for a tokenizer that llama.cpp has no kind for
 */
export function metadataOfTokenizer(
  tokenizer: unknown,
  config: unknown,
  vocabSize: number,
  ids: { bos?: number; eos?: number },
): Map<string, TypedValue> {
  const definition = definitionOf(tokenizer);
  const fields = isJsonObject(config) ? config : {};
  const size = Math.max(vocabSize, ...definition.added.map(({ id }) => id + 1));
  const tokens = Array.from({ length: size }, (_, id) => `[PAD${id}]`);
  const types: number[] = new Array(size).fill(tokenTypes.unused);
  for (const [token, id] of Object.entries(definition.model.vocab)) {
    if (id >= size) throw refused(`token ${id} is beyond the ${vocabSize} rows of the embedding`);
    tokens[id] = token;
    types[id] = tokenTypes.normal;
  }
  for (const { id, content, special } of definition.added) {
    tokens[id] = content;
    types[id] = special ? tokenTypes.control : tokenTypes.userDefined;
  }
  const kind = kindOf(definition, tokens, types);

  const idOf = (name: string): number | undefined => {
    const token = fields[`${name}_token`];
    const content = isJsonObject(token) ? token.content : token;
    const id = typeof content === "string" ? tokens.indexOf(content) : -1;
    return id >= 0 ? id : undefined;
  };
  const isWordPiece = definition.model.type === "WordPiece";
  const begin = isWordPiece ? idOf("cls") : (idOf("bos") ?? ids.bos);
  const entries: [string, TypedValue][] = [
    ...kind,
    [`${prefix}tokens`, { strings: tokens }],
    [`${prefix}token_type`, { i32s: types }],
    [
      `${prefix}add_bos_token`,
      { bool: begin !== undefined && addsFirst(definition.raw.post_processor, tokens[begin]) },
    ],
  ];
  for (const [name, id] of [
    ["bos", begin],
    ["eos", idOf("eos") ?? ids.eos],
    ["unknown", idOf("unk")],
    ["padding", idOf("pad")],
    ...(isWordPiece
      ? ([
          ["seperator", idOf("sep")],
          ["mask", idOf("mask")],
        ] as const)
      : []),
  ] as const) {
    if (id !== undefined) entries.push([`${prefix}${name}_token_id`, { u32: id }]);
  }
  return new Map(entries);
}

const refused = (problem: string) => new UsageError(`this tokenizer cannot be written as GGUF: ${problem}`);

function definitionOf(tokenizer: unknown): Definition {
  const raw = isJsonObject(tokenizer) ? tokenizer : {};
  const model = isJsonObject(raw.model) ? raw.model : {};
  const added = Array.isArray(raw.added_tokens) ? (raw.added_tokens as Token[]) : [];
  const { type, vocab } = model;
  if (type === "WordPiece" && isJsonObject(vocab)) {
    return { model: { type, vocab: vocab as Record<string, number>, merges: [] }, added, raw };
  }
  if (type !== "BPE" || !isJsonObject(vocab) || !Array.isArray(model.merges)) {
    throw refused(`its model is ${quote(type)}, only BPE and WordPiece have a kind`);
  }
  // Old files write a merge as one text, new ones as two.
  const merges = model.merges.map((merge: unknown) => (Array.isArray(merge) ? merge.join(" ") : String(merge)));
  return { model: { type, vocab: vocab as Record<string, number>, merges }, added, raw };
}

/** The keys that tell llama.cpp how to split and merge. */
function kindOf({ model, raw }: Definition, tokens: string[], types: number[]): [string, TypedValue][] {
  if (model.type === "WordPiece") return wordPiece(raw, tokens);
  const pre = preTokenizerLike(raw.pre_tokenizer);
  // llama.cpp does not normalise; texts are composed (NFC) but for rare exceptions.
  const normalizes = isJsonObject(raw.normalizer) && raw.normalizer.type !== "NFC";
  if (pre !== undefined && !normalizes) {
    return [
      [`${prefix}model`, { string: "gpt2" }],
      [`${prefix}pre`, { string: pre.names[0] }],
      [`${prefix}merges`, { strings: model.merges }],
    ];
  }
  const byteFallback = isJsonObject(raw.model) && raw.model.byte_fallback === true;
  if (!byteFallback) throw refused("its rules for splitting text are those of no pre-tokenizer of llama.cpp");
  for (const [id, token] of tokens.entries()) {
    if (/^<0x[0-9A-F]{2}>$/.test(token)) types[id] = tokenTypes.byte;
  }
  return [
    [`${prefix}model`, { string: "llama" }],
    [`${prefix}pre`, { string: "default" }],
    [`${prefix}scores`, { f32s: scoresOf(model.merges, tokens) }],
    [`${prefix}add_space_prefix`, { bool: prependsSpace(raw) }],
  ];
}

/** Marks where words begin, and no longer where they go on. */
function wordPiece({ model, normalizer }: Record<string, unknown>, tokens: string[]): [string, TypedValue][] {
  const { continuing_subword_prefix: mark = continuation } = model as Record<string, unknown>;
  if (mark !== continuation) throw refused(`words go on with ${quote(mark)}, not with ${quote(continuation)}`);
  const { type, lowercase, strip_accents: strips } = isJsonObject(normalizer) ? normalizer : {};
  if (type !== "BertNormalizer" || lowercase !== true || strips === false) {
    throw refused("llama.cpp writes all texts in lower case and without accents before it takes them apart");
  }
  for (const [id, token] of tokens.entries()) {
    if (/^\[.*\]$/s.test(token)) continue;
    tokens[id] = token.startsWith(continuation) ? token.slice(continuation.length) : wordStart + token;
  }
  return [[`${prefix}model`, { string: "bert" }]];
}

/** llama.cpp merges the pair whose result has the best score; only the order of the scores matters. */
function scoresOf(merges: readonly string[], tokens: readonly string[]): number[] {
  const ranks = new Map<string, number>();
  for (const [rank, merge] of merges.entries()) {
    const merged = merge.replace(" ", "");
    if (!ranks.has(merged)) ranks.set(merged, rank);
  }
  return tokens.map((token) => -(ranks.get(token) ?? merges.length));
}

/** Whether the tokenizer writes a space in front of a text: by its normalizer, or, since 2024, by its pre-tokenizer. */
function prependsSpace({ normalizer, pre_tokenizer: preTokenizer }: Record<string, unknown>): boolean {
  if (isJsonObject(preTokenizer) && preTokenizer.type === "Metaspace") return preTokenizer.prepend_scheme !== "never";
  const steps =
    isJsonObject(normalizer) && Array.isArray(normalizer.normalizers) ? normalizer.normalizers : [normalizer];
  return steps.some((step) => isJsonObject(step) && step.type === "Prepend");
}

/** Whether the first thing a post-processor puts into a text is this token. */
function addsFirst(processor: unknown, token: string): boolean {
  if (!isJsonObject(processor)) return false;
  if (processor.type === "BertProcessing") return Array.isArray(processor.cls) && processor.cls[0] === token;
  if (processor.type === "Sequence" && Array.isArray(processor.processors)) {
    return processor.processors.some((inner) => addsFirst(inner, token));
  }
  const first = Array.isArray(processor.single) ? processor.single[0] : undefined;
  const special = isJsonObject(first) ? first.SpecialToken : undefined;
  return processor.type === "TemplateProcessing" && isJsonObject(special) && special.id === token;
}

import { FormatError, quote } from "../core/index.js";
import {
  addedTokens,
  idsOf,
  sentencePieceBpeParts,
  sentencePieceUnigramParts,
  surround,
  tokenTypes,
} from "../io/internal.js";
import { protobufFields, protobufFloat, protobufText } from "./protobuf.js";
import type { TokenizerConfig } from "./tokenizerConfig.js";

/** Numbers of the fields of a SentencePiece model (sentencepiece_model.proto) that are read. */
const fields = {
  model: { pieces: 1, trainer: 2, normalizer: 3 },
  piece: { text: 1, score: 2, type: 3 },
  trainer: { modelType: 3, suffixSpaces: 24, byteFallback: 35, unknown: 40, begin: 41, end: 42 },
  normalizer: { name: 1, leadingSpace: 3, collapseSpaces: 4, escapeSpaces: 5 },
} as const;

const modelTypes = { unigram: 1, bpe: 2 } as const;

/** What a model says where it says nothing. */
interface Settings {
  modelType: number;
  suffixSpaces: boolean;
  byteFallback: boolean;
  unknown: number;
  begin: number;
  end: number;
  /** Of the normalisation rules. */
  name: string;
  leadingSpace: boolean;
  collapseSpaces: boolean;
  escapeSpaces: boolean;
}

interface Pieces {
  tokens: string[];
  scores: number[];
  types: number[];
}

/** Normalisation rules that can be followed, and whether they put texts into compatibility form. */
const normalizations: Readonly<Record<string, boolean>> = { "": false, identity: false, nmt_nfkc: true, nfkc: true };

/**
 * A `tokenizer.model` as the definition that a tokenizer.json would hold.
 * @param bytes the whole file, a protocol buffer message
 * @throws FormatError
 */
export function sentencePieceDefinition(bytes: Uint8Array, file: string, config: TokenizerConfig): object {
  // The first byte is field 1, of any length; a tiktoken file begins with base64 text.
  if (bytes[0] !== 0x0a) {
    throw new FormatError({
      file,
      problem: "not a SentencePiece model",
      expected: "a protocol buffer message",
      hint: "If it is a tiktoken vocabulary, take a copy of the model that has tokenizer.json",
    });
  }
  const { pieces, settings } = readModel(bytes, file);
  const { tokens, scores, types } = pieces;
  const refuse = (problem: string, expected: string) => new FormatError({ file, problem, expected });
  if (settings.suffixSpaces || !settings.escapeSpaces)
    throw refuse("spaces are not marked at the beginning of words", "spaces as marks in front of words");
  if (!Object.hasOwn(normalizations, settings.name)) {
    const known = Object.keys(normalizations).filter((name) => name !== "");
    throw refuse(`normalisation ${quote(settings.name)}`, `one of ${known.join(", ")}`);
  }
  const bpe = settings.modelType === modelTypes.bpe;
  if (!bpe && settings.modelType !== modelTypes.unigram)
    throw refuse(`a model of type ${settings.modelType}`, "BPE (2) or unigram (1)");

  const unknown = types.indexOf(tokenTypes.unknown);
  const source = {
    file,
    fields: { tokens: "pieces", scores: "scores" },
    tokens,
    scores,
    unknown: unknown >= 0 ? unknown : settings.unknown,
    leadingSpace: config.says("add_prefix_space") ?? settings.leadingSpace,
    // transformers puts the space in front of every piece between special tokens, unless the config says otherwise.
    leadingSpaceOnce: config.says("legacy") === false,
    collapseSpaces: settings.collapseSpaces,
    compatibilityForm: normalizations[settings.name],
    byteFallback: settings.byteFallback || types.includes(tokenTypes.byte),
  };
  const parts = bpe ? sentencePieceBpeParts(source) : sentencePieceUnigramParts(source);
  const [begin, end] = [config.token("bos") ?? tokens[settings.begin], config.token("eos") ?? tokens[settings.end]];
  const ids = idsOf(tokens);
  const known = (token: string | undefined) => (token !== undefined && ids.has(token) ? token : undefined);
  return {
    version: "1.0",
    added_tokens: addedTokens(tokens, types),
    ...parts,
    // Llama's own tokenizer begins a text and does not end it; T5's ends it and does not begin it.
    post_processor: surround(
      config.adds("bos", bpe) ? known(begin) : undefined,
      config.adds("eos", !bpe) ? known(end) : undefined,
      ids,
    ),
  };
}

function readModel(bytes: Uint8Array, file: string): { pieces: Pieces; settings: Settings } {
  const pieces: Pieces = { tokens: [], scores: [], types: [] };
  const settings: Settings = {
    modelType: modelTypes.unigram,
    suffixSpaces: false,
    byteFallback: false,
    unknown: 0,
    begin: 1,
    end: 2,
    name: "",
    leadingSpace: true,
    collapseSpaces: true,
    escapeSpaces: true,
  };
  for (const { number, bytes: message } of protobufFields(bytes, file)) {
    if (message === undefined) continue;
    if (number === fields.model.pieces) addPiece(pieces, message, file);
    else if (number === fields.model.trainer) readSettings(settings, fields.trainer, message, file);
    else if (number === fields.model.normalizer) readSettings(settings, fields.normalizer, message, file);
  }
  return { pieces, settings };
}

function addPiece({ tokens, scores, types }: Pieces, message: Uint8Array, file: string): void {
  let [text, score, type]: [string, number, number] = ["", 0, tokenTypes.normal];
  for (const { number, value, bytes } of protobufFields(message, file)) {
    if (number === fields.piece.text) text = protobufText(bytes, file);
    else if (number === fields.piece.score) score = protobufFloat(bytes);
    else if (number === fields.piece.type) type = value ?? type;
  }
  if (!Number.isFinite(score)) {
    throw new FormatError({ file, field: `piece ${tokens.length}`, problem: "a score that is no number" });
  }
  tokens.push(text);
  scores.push(score);
  types.push(type);
}

/** Takes over what a message says of the settings that `numbers` names; other fields do not matter here. */
function readSettings(
  settings: Settings,
  numbers: Partial<Record<keyof Settings, number>>,
  message: Uint8Array,
  file: string,
): void {
  const names = new Map(Object.entries(numbers).map(([name, number]) => [number, name as keyof Settings]));
  for (const { number, value, bytes } of protobufFields(message, file)) {
    const name = names.get(number);
    if (name === undefined) continue;
    const preset = settings[name];
    const read =
      typeof preset === "string" ? protobufText(bytes, file) : typeof preset === "boolean" ? value !== 0 : value;
    Object.assign(settings, { [name]: read });
  }
}

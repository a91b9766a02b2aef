export { type PreTokenizer, preTokenizerLike, preTokenizerNamed, preTokenizers } from "./preTokenizers.js";
export {
  addedToken,
  addedTokens,
  byteLevelParts,
  idsOf,
  type SentencePieces,
  sentencePieceBpeParts,
  sentencePieceUnigramParts,
  surround,
  tokenTypes,
} from "./tokenizerJson.js";

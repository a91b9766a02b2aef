export {
  type ChatMessage,
  type ChatTemplate,
  encodeChat,
  loadChatTemplate,
  type RenderOptions,
} from "./chatTemplate.js";
export { Detokenizer } from "./detokenizer.js";
export { type TokenizedText, type TokenizeOptions, tokenizeText } from "./tokenizedText.js";
export { loadTokenizer, type Tokenizer } from "./tokenizer.js";

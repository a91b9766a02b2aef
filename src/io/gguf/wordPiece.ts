/** What a token begins with that begins a word, in GGUF files, and one that goes on with it, in vocabularies of BERT. */
export const wordStart = "\u2581";
export const continuation = "##";

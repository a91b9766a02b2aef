// The prompt of every measurement. No imports: pages use it too.

/** The same known ids for everyone: spread over the vocabulary, past its special tokens. */
export const promptIds = (count, vocabSize) =>
  Array.from({ length: count }, (_, i) => 3 + ((i * 7919) % (vocabSize - 3)));

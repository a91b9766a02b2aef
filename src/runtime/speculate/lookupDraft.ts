import type { Draft, Drafter } from "./draft.js";

/** Tokens that must have occurred together. */
const longestMatch = 3;

/**
 * Prompt look-up (also n-gram speculation): what followed the last time that the newest tokens, three of them or fewer, stood
 * together. Costs nothing, and pays where a text repeats itself or its prompt: code, summaries, extraction.
 */
export const lookupDraft = (): Draft => ({
  text: "lookup",
  open: (target): Drafter => ({
    propose: async (last, most) => ({ ids: followers([...target.tokens, last], most) }),
    [Symbol.dispose]: () => {},
  }),
});

/** What followed the newest earlier place where the last tokens of a text stood, of the longest match that there is. */
export function followers(tokens: readonly number[], most: number): number[] {
  for (let length = Math.min(longestMatch, tokens.length - 1); length > 0; length--) {
    const end = tokens.length - length;
    for (let at = end - 1; at >= 0; at--) {
      let same = 0;
      while (same < length && tokens[at + same] === tokens[end + same]) same++;
      if (same === length) return tokens.slice(at + length, at + length + most);
    }
  }
  return [];
}

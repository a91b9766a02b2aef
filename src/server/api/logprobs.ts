import type { TokenLogprob } from "../engine/request.js";
import type { TokenTexts } from "../models/tokenText.js";

/** Log probabilities as chat completions write them. */
export const chatLogprobs = (texts: TokenTexts, tokens: readonly TokenLogprob[]) => ({
  content: tokens.map(({ id, logprob, top }) => ({
    ...chatToken(texts, id, logprob!),
    top_logprobs: top.map((other) => chatToken(texts, other.id, other.logprob)),
  })),
  refusal: null,
});

function chatToken(texts: TokenTexts, id: number, logprob: number) {
  const { text, bytes } = texts.of(id);
  return { token: text, logprob: finite(logprob), bytes: [...bytes] };
}

/** As completions write them. @param offset characters before the first of the tokens */
export function completionLogprobs(texts: TokenTexts, tokens: readonly TokenLogprob[], offset: number) {
  let at = offset;
  return {
    tokens: tokens.map(({ id }) => texts.of(id).text),
    token_logprobs: tokens.map(({ logprob }) => (logprob === undefined ? null : finite(logprob))),
    top_logprobs: tokens.map(({ logprob, top }) =>
      logprob === undefined
        ? null
        : Object.fromEntries(top.map((other) => [texts.of(other.id).text, finite(other.logprob)])),
    ),
    text_offset: tokens.map(({ id }) => {
      const mine = at;
      at += texts.of(id).text.length;
      return mine;
    }),
  };
}

/** JSON has no −∞. */
const finite = (logprob: number) => Math.max(logprob, -9999);

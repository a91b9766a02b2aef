// A language model that is a hash of the text, the same as in oracle.py: what is asked of it can be compared to the letter.

/** FNV-1a over UTF-8. */
function hashOf(text) {
  let value = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193) >>> 0;
  return value;
}

export function fakeScorer() {
  const asked = [];
  return {
    asked,
    work: { tokensRun: 0, tokensAlone: 0 },
    logLikelihoods: async (requests) =>
      requests.map(({ context, continuation }) => {
        asked.push([context, continuation]);
        const value = hashOf(`${context}\0${continuation}`);
        return { logLikelihood: -(value % 10007) / 97, isGreedy: value % 3 === 0 };
      }),
    textLogLikelihoods: async (texts) =>
      texts.map((text) => {
        asked.push([text]);
        return -(hashOf(text) % 10007) / 97 - Array.from(text).length;
      }),
    answers: async (requests) =>
      requests.map(({ prompt, settings }) => {
        asked.push([prompt, settings.until]);
        const at = hashOf(prompt) % 7;
        return ` ${prompt
          .trim()
          .split(/\s+/)
          .slice(-8 - at, -2)
          .join(" ")} #### ${at}`;
      }),
  };
}

export const fakeChatTemplate = {
  render(messages, { addGenerationPrompt = true } = {}) {
    const text = messages.map(({ role, content }) => `<${role}>${content}</${role}>`).join("");
    return addGenerationPrompt ? `${text}<assistant>` : text;
  },
};

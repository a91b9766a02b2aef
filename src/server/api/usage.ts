/** Tokens of a request, over all its choices. */
export class Usage {
  promptTokens = 0;
  cachedTokens = 0;
  completionTokens = 0;

  get body() {
    return {
      prompt_tokens: this.promptTokens,
      completion_tokens: this.completionTokens,
      total_tokens: this.promptTokens + this.completionTokens,
      prompt_tokens_details: { cached_tokens: this.cachedTokens },
    };
  }
}

import { UsageError } from "../core/index.js";
import type { Model } from "../model/index.js";
import type { Tokenizer } from "../text/index.js";

/**
 * The ids of a prompt, whatever list they come in.
 * @throws UsageError for none, for what is no list of ids, and for ids beyond the model's vocabulary
 */
export function promptIds(model: Model, prompt: ArrayLike<number>, tokenizer?: Tokenizer): Uint32Array {
  if (typeof prompt !== "object" || prompt === null || !Number.isSafeInteger(prompt.length)) {
    throw new UsageError("the prompt is no list of token ids; generateText takes a text");
  }
  if (prompt.length === 0) throw new UsageError("the prompt has no tokens");
  const { vocabSize } = model.config;
  const wrong = Array.prototype.findIndex.call(prompt, (id) => !(Number.isInteger(id) && id >= 0 && id < vocabSize));
  if (wrong < 0) return prompt instanceof Uint32Array ? prompt : Uint32Array.from(prompt);
  const id = prompt[wrong];
  const token = tokenizer?.tokenOf(id);
  throw new UsageError(
    token === undefined
      ? `token ${id} of the prompt, in a vocabulary of ${vocabSize}`
      : `the prompt has token ${id}, ${JSON.stringify(token.slice(0, 80))}: the tokenizer (tokenizer.json) knows ` +
          `${tokenizer!.vocabSize} tokens, and the model has rows for ${vocabSize}. Leave that token out, or take the tokenizer ` +
          "that the model was trained with",
  );
}

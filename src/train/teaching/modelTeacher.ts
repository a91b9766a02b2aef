import type { Model } from "../../model/index.js";
import { collect, type GenerateOptions, generate } from "../../runtime/index.js";
import { type ChatTemplate, encodeChat, type Tokenizer } from "../../text/index.js";
import type { RecordTeacher } from "./lessons.js";

/** A model in memory that answers. */
export interface ModelTeacherOptions {
  model: Model;
  tokenizer: Tokenizer;
  /** Asks in a chat; without one the model goes on with a text. */
  template?: ChatTemplate;
  /** How it writes. Nothing said: the most likely token, 256 at most. */
  generation?: Omit<GenerateOptions, "tokenizer" | "continuesPrompt" | "signal" | "onProgress" | "sequence" | "seed">;
  location: string;
  /** All that decides its answers beyond the options here, as JSON: a fingerprint of the weights. */
  identity: object;
}

/** @returns a teacher whose answers depend on model, question and options alone */
export function modelTeacher(options: ModelTeacherOptions): RecordTeacher {
  const { model, tokenizer, template, generation, location, identity } = options;
  return {
    location,
    identity,
    async answer({ text, messages, seed }, signal) {
      const ids = template ? encodeChat(tokenizer, template, messages) : tokenizer.encode(text);
      const continuesPrompt = template === undefined;
      const written = await collect(generate(model, ids, { ...generation, tokenizer, continuesPrompt, seed, signal }));
      return {
        text: written.text,
        finished: written.reason === "stopToken" || written.reason === "stopString",
      };
    },
  };
}

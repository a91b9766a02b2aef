import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { FormatError, quote, RarefyError } from "../core/index.js";
import type { ModelFiles } from "../io/index.js";
import { isJsonObject, readJsonFile } from "../io/index.js";

/** Text to token ids and back, as `tokenizer.json` defines it. */
export interface Tokenizer {
  /** One more than the largest id the tokenizer knows; a model's `vocabSize` may be larger (padded). */
  readonly vocabSize: number;
  /** Ids of special tokens: end of text, turns of a chat … */
  readonly specialIds: ReadonlySet<number>;
  /**
   * @param options.addSpecialTokens whether the tokenizer adds what its post-processor asks for (often a begin-of-text
   * token). Default true. Special tokens spelt out in the text always become their ids.
   */
  encode(text: string, options?: { addSpecialTokens?: boolean }): Uint32Array;
  /**
   * The text of tokens; ids the tokenizer does not know give none. Incomplete UTF-8 becomes U+FFFD. Spaces are left as the
   * tokens have them, whatever `clean_up_tokenization_spaces` says.
   * @param options.skipSpecialTokens default false
   */
  decode(ids: Iterable<number>, options?: { skipSpecialTokens?: boolean }): string;
  /** The id of a token by its string in the vocabulary ("Ġthe", "<|im_end|>"). */
  idOf(token: string): number | undefined;
  /** The string of a token in the vocabulary. */
  tokenOf(id: number): string | undefined;
}

/** Ids above this belong to no known tokenizer; the library would make arrays of that length. */
const maxTokenId = 2 ** 24;
/** The largest known tokenizer.json has 34 MB. */
const maxTokenizerBytes = 256 * 2 ** 20;
/** It has some 600,000 tokens and merges. */
const tokenizerLimits = { values: 6_000_000 };

/**
 * Loads `tokenizer.json` and, where there is one, `tokenizer_config.json`.
 * @throws FormatError
 */
export async function loadTokenizer(files: ModelFiles): Promise<Tokenizer> {
  const file = `${files.location}/tokenizer.json`;
  const definition = await readJsonFile(files, "tokenizer.json", maxTokenizerBytes, tokenizerLimits);
  if (definition === undefined) {
    throw new FormatError({
      file,
      problem: "there is no such file",
      hint: "Save the tokenizer in the fast format (tokenizer.json) beside the weights",
    });
  }
  checkIds(definition, file);
  const config = (await readJsonFile(files, "tokenizer_config.json")) ?? {};
  try {
    return new WrappedTokenizer(new HuggingFaceTokenizer(definition as object, config as object), file);
  } catch (cause) {
    if (cause instanceof RarefyError) throw cause;
    throw new FormatError({ file, problem: `not a tokenizer (${(cause as Error).message})` }, { cause });
  }
}

/** Checks the ids before the library indexes arrays with them. */
function checkIds(definition: unknown, file: string): void {
  const fail = (field: string, problem: string) =>
    new FormatError({ file, field, problem, expected: `an integer from 0 to ${maxTokenId}` });
  const isId = (id: unknown) => Number.isInteger(id) && (id as number) >= 0 && (id as number) <= maxTokenId;

  const model = isJsonObject(definition) ? definition.model : undefined;
  if (!isJsonObject(model)) throw new FormatError({ file, field: "model", problem: "not a JSON object" });
  if (isJsonObject(model.vocab)) {
    for (const [token, id] of Object.entries(model.vocab)) {
      if (!isId(id)) throw fail("model.vocab", `id ${quote(id)} of ${quote(token)}`);
    }
  }
  const added = isJsonObject(definition) ? (definition.added_tokens ?? []) : [];
  if (!Array.isArray(added)) throw new FormatError({ file, field: "added_tokens", problem: "not a list" });
  for (const token of added) {
    if (!isJsonObject(token) || typeof token.content !== "string") {
      throw new FormatError({ file, field: "added_tokens", problem: "an entry without a text" });
    }
    if (!isId(token.id)) throw fail("added_tokens", `id ${quote(token.id)} of ${quote(token.content)}`);
  }
}

class WrappedTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly specialIds: ReadonlySet<number>;
  readonly #inner: HuggingFaceTokenizer;
  readonly #file: string;

  constructor(inner: HuggingFaceTokenizer, file: string) {
    this.#inner = inner;
    this.#file = file;
    const added = [...inner.get_added_tokens_decoder().values()];
    this.specialIds = new Set(added.filter((token) => token.special).map((token) => token.id));
    let largestId = -1;
    for (const id of inner.get_vocab().values()) largestId = Math.max(largestId, id);
    this.vocabSize = largestId + 1;
  }

  encode(text: string, options: { addSpecialTokens?: boolean } = {}): Uint32Array {
    const { ids } = this.#guard(() =>
      this.#inner.encode(text, { add_special_tokens: options.addSpecialTokens ?? true }),
    );
    // The library gives undefined for a token of the post-processor that is not in the vocabulary.
    const unknown = ids.indexOf(undefined as unknown as number);
    if (unknown >= 0) {
      throw new FormatError({
        file: this.#file,
        field: "post_processor",
        problem: "a token it adds is not in the vocabulary",
      });
    }
    return Uint32Array.from(ids);
  }

  decode(ids: Iterable<number>, options: { skipSpecialTokens?: boolean } = {}): string {
    const skip = options.skipSpecialTokens ?? false;
    const known = Array.from(ids).filter(
      (id) => this.#inner.id_to_token(id) !== undefined && !(skip && this.specialIds.has(id)),
    );
    if (known.length === 0) return "";
    return this.#guard(() => this.#inner.decode(known, { clean_up_tokenization_spaces: false }));
  }

  idOf(token: string): number | undefined {
    return this.#inner.token_to_id(token);
  }

  tokenOf(id: number): string | undefined {
    return this.#inner.id_to_token(id);
  }

  #guard<T>(call: () => T): T {
    try {
      return call();
    } catch (cause) {
      throw new FormatError(
        { file: this.#file, problem: `the tokenizer failed (${(cause as Error).message})` },
        { cause },
      );
    }
  }
}

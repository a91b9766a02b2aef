import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { FormatError, RarefyError } from "../core/index.js";
import type { ModelFiles, Warning } from "../io/index.js";
import { makeDecoderExact, makePreTokenizerExact } from "./exactSteps.js";
import { TokenizerConfig } from "./tokenizerConfig.js";
import { readTokenizerDefinition, type TokenizerDefinition } from "./tokenizerDefinition.js";
import { tokenizerWarnings } from "./tokenizerFields.js";
import { TokenizerWork } from "./tokenizerWork.js";

/** Text to token ids and back, as `tokenizer.json` defines it. */
export interface Tokenizer {
  /** One more than the largest id the tokenizer knows; a model's `vocabSize` may be larger (padded). */
  readonly vocabSize: number;
  /** The begin-of-text token, by the tokenizer's config or as what the tokenizer begins a text with. */
  readonly beginId: number | undefined;
  /** Ids of special tokens: end of text, turns of a chat … */
  readonly specialIds: ReadonlySet<number>;
  /** What its files say that is not followed, or that two of them say differently. */
  readonly warnings: readonly Warning[];
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

/**
 * Loads the tokenizer of a model from `tokenizer.json`, else `tokenizer.model`, else `vocab.json` with `merges.txt`, with
 * the tokens that `tokenizer_config.json` or `added_tokens.json` names beside it.
 * @throws FormatError
 */
export async function loadTokenizer(files: ModelFiles): Promise<Tokenizer> {
  const config = await TokenizerConfig.read(files);
  const source = await readTokenizerDefinition(files, config);
  const { file, definition } = source;
  try {
    const work = new TokenizerWork(file);
    tryNormalizer(definition, work);
    // What its config says of a slow tokenizer is not for one that spells its steps out.
    const unknown = (definition.model as Record<string, unknown>).unk_token ?? config.token("unk");
    const inner = new HuggingFaceTokenizer(definition, { unk_token: unknown, eos_token: config.token("eos") });
    makePreTokenizerExact(definition.pre_tokenizer, inner.pre_tokenizer);
    makeDecoderExact(definition.decoder, inner.decoder);
    for (const part of ["normalizer", "pre_tokenizer", "post_processor", "decoder"] as const)
      work.bound((inner as unknown as Record<string, unknown>)[part], part);
    return new WrappedTokenizer(inner, work, source, config);
  } catch (cause) {
    if (cause instanceof RarefyError) throw cause;
    throw new FormatError({ file, problem: `not a tokenizer (${(cause as Error).message})` }, { cause });
  }
}

/**
 * The library normalises added tokens while it makes a tokenizer, before its steps can be bounded: they are tried first.
 * @throws FormatError
 */
function tryNormalizer(definition: Record<string, unknown>, work: TokenizerWork): void {
  if (definition.normalizer === null || definition.normalizer === undefined) return;
  const alone = { pre_tokenizer: null, post_processor: null, decoder: null, added_tokens: [] };
  const model = { type: "BPE", vocab: {}, merges: [] };
  const { normalizer } = new HuggingFaceTokenizer(
    { ...alone, model, normalizer: definition.normalizer },
    {},
  ) as unknown as { normalizer: (text: string) => string };
  work.bound(normalizer, "normalizer");
  for (const { content } of (definition.added_tokens ?? []) as { content: string }[]) {
    work.begin(content.length);
    normalizer(content);
  }
}

class WrappedTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly beginId: number | undefined;
  readonly specialIds: ReadonlySet<number>;
  readonly warnings: readonly Warning[];
  readonly #inner: HuggingFaceTokenizer;
  readonly #work: TokenizerWork;
  readonly #file: string;
  /** Of a unigram model with byte fallback, which the library does not do: the unknown token, and the 256 of bytes. */
  readonly #unknownBytes: { unknown: number; bytes: readonly number[] } | undefined;

  constructor(inner: HuggingFaceTokenizer, work: TokenizerWork, source: TokenizerDefinition, config: TokenizerConfig) {
    this.#inner = inner;
    this.#work = work;
    this.#file = source.file;
    this.#unknownBytes = byteFallbackOf(source, inner);
    const added = [...inner.get_added_tokens_decoder().values()];
    this.specialIds = new Set(added.filter((token) => token.special).map((token) => token.id));
    let largestId = -1;
    for (const id of inner.get_vocab().values()) largestId = Math.max(largestId, id);
    this.vocabSize = largestId + 1;
    const begin = config.token("bos");
    this.beginId = begin === undefined ? this.#firstAdded() : inner.token_to_id(begin);
    this.warnings = tokenizerWarnings(config, source, inner);
  }

  encode(text: string, options: { addSpecialTokens?: boolean } = {}): Uint32Array {
    const { ids: whole, tokens } = this.#guard(text.length, () =>
      this.#inner.encode(text, { add_special_tokens: options.addSpecialTokens ?? true }),
    );
    const ids = this.#unknownBytes === undefined ? whole : this.#withBytes(whole, tokens, this.#unknownBytes);
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
    const characters = known.reduce((sum, id) => sum + this.#inner.id_to_token(id)!.length, 0);
    return this.#guard(characters, () => this.#inner.decode(known, { clean_up_tokenization_spaces: false }));
  }

  idOf(token: string): number | undefined {
    return this.#inner.token_to_id(token);
  }

  tokenOf(id: number): string | undefined {
    return this.#inner.id_to_token(id);
  }

  /** The special token that a text is begun with. */
  #firstAdded(): number | undefined {
    const [first] = this.#guard(0, () => this.#inner.encode("", { add_special_tokens: true }).ids);
    return this.specialIds.has(first) ? first : undefined;
  }

  #withBytes(
    ids: readonly number[],
    tokens: readonly string[],
    { unknown, bytes }: { unknown: number; bytes: readonly number[] },
  ): number[] {
    const unknownToken = this.#inner.id_to_token(unknown);
    return ids.flatMap((id, i) =>
      id === unknown && tokens[i] !== unknownToken ? Array.from(utf8.encode(tokens[i]), (byte) => bytes[byte]) : [id],
    );
  }

  #guard<T>(characters: number, call: () => T): T {
    this.#work.begin(characters);
    try {
      return call();
    } catch (cause) {
      if (cause instanceof RarefyError) throw cause;
      throw new FormatError(
        { file: this.#file, problem: `the tokenizer failed (${(cause as Error).message})` },
        { cause },
      );
    }
  }
}

const utf8 = new TextEncoder();

function byteFallbackOf({ definition }: TokenizerDefinition, inner: HuggingFaceTokenizer) {
  const model = definition.model as Record<string, unknown>;
  if (model.type !== "Unigram" || model.byte_fallback !== true) return undefined;
  const names = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
  const bytes = names.map((name) => inner.token_to_id(name));
  // As in the Rust library: only where there is a token for every byte.
  return bytes.includes(undefined) ? undefined : { unknown: model.unk_id as number, bytes: bytes as number[] };
}

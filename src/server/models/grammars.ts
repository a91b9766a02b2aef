import { UsageError } from "../../core/index.js";
import type { Tokenizer } from "../../text/index.js";
import type { Constraint } from "../engine/request.js";
import { loadXGrammar, type XGrammar } from "./xgrammar.js";

/** Schemas whose automata are kept. */
const remembered = 32;

/**
 * Holds the answers of a model to JSON, or to a schema, with XGrammar (arXiv 2411.15100): the npm package
 * @mlc-ai/web-xgrammar, which is imported when the first request asks for it.
 */
export class Grammars implements Disposable {
  #library: Promise<{ x: XGrammar; compiler: Awaited<ReturnType<typeof compilerOf>> }> | undefined;
  readonly #compiled = new Map<string, Promise<{ dispose(): void }>>();

  constructor(
    readonly tokenizer: Tokenizer,
    readonly vocabSize: number,
    readonly stopIds: readonly number[],
  ) {}

  /**
   * A constraint for one text.
   * @param schema a JSON schema; undefined for any JSON object
   * @throws NoGrammarError without the package, UsageError for a schema that it cannot follow
   */
  async constraint(schema: object | undefined): Promise<Constraint> {
    this.#library ??= this.#open().catch((error: unknown) => {
      this.#library = undefined;
      throw error;
    });
    const { x, compiler } = await this.#library;
    const key = JSON.stringify(schema ?? { type: "object" });
    let compiling = this.#compiled.get(key);
    if (compiling === undefined) {
      // No space but those between values: small models would go on with spaces for ever.
      compiling = compiler.compileJSONSchema(key, false);
      this.#forgetOldest();
      this.#compiled.set(key, compiling);
    }
    try {
      const compiled = (await compiling) as Awaited<ReturnType<typeof compiler.compileJSONSchema>>;
      const matcher = await x.GrammarMatcher.createGrammarMatcher(compiled, [...this.stopIds]);
      return new MatcherConstraint(matcher, this.vocabSize);
    } catch (error) {
      this.#compiled.delete(key);
      throw new UsageError(
        `the schema cannot be followed: ${String((error as Error)?.message ?? error).slice(0, 300)}`,
      );
    }
  }

  async #open() {
    const x = await loadXGrammar();
    return { x, compiler: await compilerOf(x, this.tokenizer, this.vocabSize, this.stopIds) };
  }

  #forgetOldest(): void {
    if (this.#compiled.size < remembered) return;
    const [[key, compiling]] = this.#compiled;
    this.#compiled.delete(key);
    // A text that is under way may still use it: the library frees it with the last of its matchers.
    void compiling.then((compiled) => compiled.dispose()).catch(() => {});
  }

  [Symbol.dispose](): void {
    for (const compiling of this.#compiled.values()) void compiling.then((one) => one.dispose()).catch(() => {});
    this.#compiled.clear();
    void this.#library?.then(({ compiler }) => compiler.dispose()).catch(() => {});
    this.#library = undefined;
  }
}

async function compilerOf(x: XGrammar, tokenizer: Tokenizer, vocabSize: number, stopIds: readonly number[]) {
  // A token that is "" here is never allowed: special ones, and rows of the model that no token has.
  const vocabulary = Array.from({ length: vocabSize }, (_, id) =>
    tokenizer.specialIds.has(id) ? "" : (tokenizer.tokenOf(id) ?? ""),
  );
  const kind =
    tokenizer.idOf("<0x0A>") !== undefined ? "byte_fallback" : bytesAreLetters(vocabulary) ? "byte_level" : "raw";
  const info = await x.TokenizerInfo.createTokenizerInfo(vocabulary, kind, false, vocabSize, [...stopIds]);
  return x.GrammarCompiler.createGrammarCompiler(info, false);
}

/** Vocabularies of the GPT-2 kind write a space as Ġ and a line end as Ċ. */
const bytesAreLetters = (vocabulary: readonly string[]) => vocabulary.some((token) => /^[ĠĊ]/.test(token));

class MatcherConstraint implements Constraint {
  #disposed = false;

  constructor(
    readonly matcher: Awaited<ReturnType<XGrammar["GrammarMatcher"]["createGrammarMatcher"]>>,
    readonly vocabSize: number,
  ) {}

  async mask(logits: Float32Array): Promise<void> {
    // Given back already, where the client went away during the step.
    if (this.#disposed || this.matcher.isTerminated()) return;
    const bits = await this.matcher.getNextTokenBitmask();
    for (let id = 0; id < logits.length; id++) {
      if (((bits[id >> 5] >>> (id & 31)) & 1) === 0) logits[id] = Number.NEGATIVE_INFINITY;
    }
  }

  accept(id: number): void {
    if (!this.#disposed && !this.matcher.isTerminated()) this.matcher.acceptToken(id);
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.matcher.dispose();
  }
}

import { UsageError } from "../../core/index.js";
import type { Tokenizer } from "../../text/index.js";
import type { Constraint } from "../engine/request.js";
import { type GrammarLibrary, loadXGrammar, type XGrammar } from "./xgrammar.js";

/** Schemas whose automata are kept. */
const remembered = 32;

type Compiler = Awaited<ReturnType<typeof compilerOf>>;

/** An automaton, and the instance that made it. */
interface Compiled {
  readonly x: XGrammar;
  readonly grammar: Awaited<ReturnType<Compiler["compileJSONSchema"]>>;
}

/**
 * Holds the answers of a model to JSON, or to a schema, with XGrammar (arXiv 2411.15100): the npm package
 * @mlc-ai/web-xgrammar, which is loaded when the first request asks for it.
 *
 * The library gives up at a schema that it cannot follow, and leaves its stack as it was then: after some of those it fails
 * whatever it is asked. Therefore an instance reads schemas first and is thrown away with the first that it gives up at; the one
 * that knows the vocabulary, which takes long to make, is given what the other could read.
 */
export class Grammars implements Disposable {
  #compiling: Promise<{ library: GrammarLibrary; compiler: Compiler }> | undefined;
  #reader: GrammarLibrary | undefined;
  /** Schemas are read one after another: each by an instance that is whole. */
  #reading: Promise<unknown> = Promise.resolve();
  readonly #compiled = new Map<string, Promise<Compiled>>();

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
    const text = JSON.stringify(schema ?? { type: "object" });
    let compiling = this.#compiled.get(text);
    if (compiling === undefined) {
      compiling = this.#compile(text, schema === undefined);
      this.#forgetOldest();
      this.#compiled.set(text, compiling);
    }
    try {
      const { x, grammar } = await compiling;
      const matcher = await x.GrammarMatcher.createGrammarMatcher(grammar, [...this.stopIds]);
      return new MatcherConstraint(matcher, this.vocabSize);
    } catch (error) {
      this.#compiled.delete(text);
      throw error;
    }
  }

  async #compile(schema: string, isOurs: boolean): Promise<Compiled> {
    if (!isOurs) await this.#read(schema);
    this.#compiling ??= this.#open().catch((error: unknown) => {
      this.#compiling = undefined;
      throw error;
    });
    const opened = this.#compiling;
    const { library, compiler } = await opened;
    try {
      // No space but those between values: small models would go on with spaces for ever.
      return { x: library.x, grammar: await compiler.compileJSONSchema(schema, false) };
    } catch {
      // What it compiled before goes with it; texts that are under way keep what they have.
      if (this.#compiling === opened) this.#compiling = undefined;
      this.#compiled.clear();
      throw cannotFollow(library);
    }
  }

  /** @throws UsageError where the library cannot follow it */
  async #read(schema: string): Promise<void> {
    const turn = this.#reading.then(async () => {
      this.#reader ??= await loadXGrammar();
      const { x } = this.#reader;
      try {
        (await x.Grammar.fromJSONSchema(schema, false)).dispose();
      } catch {
        const error = cannotFollow(this.#reader);
        this.#reader = undefined;
        throw error;
      }
    });
    this.#reading = turn.catch(() => {});
    await turn;
  }

  async #open() {
    const library = await loadXGrammar();
    return { library, compiler: await compilerOf(library.x, this.tokenizer, this.vocabSize, this.stopIds) };
  }

  #forgetOldest(): void {
    if (this.#compiled.size < remembered) return;
    const [[key, compiling]] = this.#compiled;
    this.#compiled.delete(key);
    // A text that is under way may still use it: the library frees it with the last of its matchers.
    void compiling.then(({ grammar }) => grammar.dispose()).catch(() => {});
  }

  [Symbol.dispose](): void {
    for (const compiling of this.#compiled.values())
      void compiling.then(({ grammar }) => grammar.dispose()).catch(() => {});
    this.#compiled.clear();
    void this.#compiling?.then(({ compiler }) => compiler.dispose()).catch(() => {});
    this.#compiling = undefined;
    this.#reader = undefined;
  }
}

const cannotFollow = (library: GrammarLibrary) =>
  new UsageError(`the schema cannot be followed: ${library.lastWords() || "the library that reads it gave up"}`);

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

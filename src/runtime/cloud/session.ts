import * as z from "zod/mini";
import { FormatError, NetworkError } from "../../core/index.js";
import type { Sampler } from "../samplers.js";
import type { Cloud } from "./cloud.js";
import type { Link } from "./link.js";

const count = z.int().check(z.gte(0));
const sessionSchema = z.object({ session: z.string().check(z.minLength(1), z.maxLength(200)), next: count });
const batchSchema = z.object({ accepted: count, next: count, elapsed_ms: z.number().check(z.gte(0)) });

/** What the server makes of tokens. */
export interface Verified {
  /** How many of those that were proposed stay. */
  readonly accepted: number;
  /** The token after them. */
  readonly next: number;
  /** Milliseconds that the server took. */
  readonly serverMs: number;
}

/** How a text is begun on a server. */
export interface CloudTextOptions {
  readonly prompt: readonly number[];
  /** The most tokens that follow. */
  readonly maxTokens: number;
  /** How the server is to choose, and with which random numbers. */
  readonly sampler: Sampler;
  readonly seed: number;
  /** The server's name of the model; may be left out where it has one. */
  readonly model?: string;
  /** Aborted to end the session. */
  readonly signal: AbortSignal;
}

/** A text on a server, which runs what it is given and says what comes next. */
export class CloudSession {
  private constructor(
    readonly link: Link,
    readonly cloud: Cloud,
    readonly id: string,
    /** Of its stream: why the server ended it. */
    readonly ended: Promise<string | undefined>,
    readonly signal: AbortSignal,
  ) {}

  /** @returns the session, and the token after the prompt */
  static async open(
    link: Link,
    cloud: Cloud,
    { prompt, maxTokens, sampler, seed, model, signal }: CloudTextOptions,
  ): Promise<{ session: CloudSession; next: number }> {
    const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1 } = sampler.options;
    const body = {
      ...(model !== undefined && { model }),
      prompt,
      max_tokens: maxTokens,
      temperature,
      top_k: topK,
      top_p: topP,
      min_p: minP,
      repetition_penalty: repetitionPenalty,
      seed,
    };
    const { first, ended } = await link.listen("/verify/sessions", body, sessionSchema, signal);
    const session = new CloudSession(link, cloud, first.session, ended, signal);
    return { session, next: session.#known(first.next, "/verify/sessions") };
  }

  /**
   * @param given tokens that are decided, at least one
   * @param ids proposed after them, @param laws what each was drawn from
   */
  async verify(
    given: readonly number[],
    ids: readonly number[] = [],
    laws?: readonly (readonly [number, number][])[],
  ): Promise<Verified> {
    const body = { session: this.id, given, ids, ...(laws !== undefined && { laws }) };
    const { accepted, next, elapsed_ms } = await this.#ask(body);
    if (accepted > ids.length) {
      throw this.#malformed("/verify/batches", "accepted", accepted, `at most the ${ids.length} that were proposed`);
    }
    return { accepted, next: this.#known(next, "/verify/batches"), serverMs: elapsed_ms };
  }

  async #ask(body: object): Promise<z.infer<typeof batchSchema>> {
    try {
      return await this.link.ask("/verify/batches", body, batchSchema, this.signal);
    } catch (error) {
      // Why a session is not there any more stands in its stream.
      const why = error instanceof NetworkError && error.status === 404 ? await this.ended : undefined;
      throw why === undefined
        ? error
        : new NetworkError(`${this.cloud.url}: the server ended the session: ${why}`, { status: 404 });
    }
  }

  #known(id: number, path: string): number {
    const { vocabSize } = this.cloud;
    if (id < vocabSize) return id;
    throw this.#malformed(path, "next", id, `a token of the ${vocabSize} of the server's vocabulary`);
  }

  #malformed = (path: string, field: string, found: number, expected: string) =>
    new FormatError({ file: `${this.cloud.url}${path}`, field, problem: String(found), expected });
}

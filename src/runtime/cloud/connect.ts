import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import { checkOptions, type OptionRules, optionRules } from "../../core/internal.js";
import type { Tokenizer } from "../../text/index.js";
import { CascadeSource } from "./cascadeSource.js";
import type { Cloud } from "./cloud.js";
import { Link, type LinkOptions } from "./link.js";
import { RouteSource } from "./routeSource.js";
import { CloudSource } from "./source.js";
import { vocabularyOf } from "./vocabulary.js";

/** How a server is found and asked. */
export interface CloudOptions extends LinkOptions {
  /** Of the model that proposes; the server's must give every token the same id. */
  readonly tokenizer: Tokenizer;
  /** The server's name of the model; may be left out where it has one. */
  readonly model?: string;
  readonly signal?: AbortSignal;
}

const rules: OptionRules<CloudOptions> = {
  tokenizer: optionRules.having("tokenOf", "a tokenizer, as loadTokenizer gives"),
  model: optionRules.text,
  key: optionRules.text,
  fetch: optionRules.function,
  timeoutMs: optionRules.integer(1),
  signal: optionRules.signal,
};

const id = z.int().check(z.gte(0), z.lt(2 ** 24));
const schema = z.object({
  model: z.string().check(z.maxLength(1024)),
  vocabulary: z.object({
    size: id,
    digest: z.string().check(z.regex(/^[0-9a-f]{64}$/, "expected 64 hexadecimal digits")),
  }),
  vocab_size: id.check(z.gte(1)),
  stop_ids: z.array(id).check(z.maxLength(1024)),
  context: z.int().check(z.gte(1)),
});

/**
 * Asks a server what it verifies.
 * @param url of its API, as `http://127.0.0.1:8080/v1`
 * @throws UsageError where its vocabulary is another, FormatError naming the field of an answer that is malformed, NetworkError
 * where it cannot be reached or refuses
 */
export async function connectCloud(url: string, options: CloudOptions): Promise<Cloud> {
  checkOptions("connectCloud", options, rules);
  const { tokenizer, model: asked, signal, ...how } = options;
  const link = new Link(url, how);
  const told = await link.ask("/verify/model", asked === undefined ? {} : { model: asked }, schema, signal);
  const own = await vocabularyOf(tokenizer);
  if (told.vocabulary.digest !== own.digest || told.vocabulary.size !== own.size) {
    throw new UsageError(
      `${url}: the vocabulary of ${told.model} has ${told.vocabulary.size} tokens, and is not that of the model here (${own.size}); ` +
        "take a model of the same family",
    );
  }
  const cloud: Cloud = {
    url,
    model: told.model,
    vocabSize: told.vocab_size,
    stopIds: told.stop_ids,
    context: told.context,
    open(sequence, sampler, { route, draftTokens, stopIds = told.stop_ids, signal }) {
      const how = { model: asked, signal };
      const verified = () => new CloudSource(link, cloud, sequence, sampler, { ...how, draftTokens });
      if (route === undefined) return verified();
      const { least, span } = route;
      if (least === undefined) {
        throw new UsageError(`${route.text}: the threshold of a budget is found on a text first (calibrateRoute)`);
      }
      return span === undefined
        ? new RouteSource(link, cloud, sequence, sampler, { ...how, route: { ...route, least } })
        : new CascadeSource(sequence, sampler, {
            route: { ...route, least, span },
            stopIds,
            openCloud: verified,
            signal,
          });
    },
  };
  return cloud;
}

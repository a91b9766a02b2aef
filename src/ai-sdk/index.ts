/// <reference lib="esnext.disposable" preserve="true" />
import { createOpenAICompatible, type OpenAICompatibleProvider } from "@ai-sdk/openai-compatible";
import type { Server } from "../server/index.js";

/** Where the models of a provider are: in this process, or behind an address. */
export type RarefyProviderOptions =
  | {
      /** What `createServer` of rarefy/server gave: nothing goes over a socket. */
      readonly server: Pick<Server, "app">;
      /** A key, where the server wants one. */
      readonly apiKey?: string;
    }
  | {
      /** "http://127.0.0.1:8080/v1", of `rarefy serve`. */
      readonly baseURL: string;
      readonly apiKey?: string;
    };

/** Requests that go nowhere but to a server in this process. */
const insideURL = "http://localhost/v1";

/**
 * A provider for the AI SDK (npm package ai). Needs the package @ai-sdk/openai-compatible, which speaks for it.
 * @example
 * await using server = createServer({ models: [{ id: "tiny", files: () => resolveModel("tiny-6m") }] });
 * const rarefy = createRarefy({ server });
 * const { text } = await generateText({ model: rarefy("tiny"), prompt: "Tell me of the sea." });
 */
export function createRarefy(options: RarefyProviderOptions): OpenAICompatibleProvider {
  const common = { name: "rarefy", apiKey: options.apiKey, includeUsage: true, supportsStructuredOutputs: true };
  if ("baseURL" in options) return createOpenAICompatible({ ...common, baseURL: options.baseURL });
  const { app } = options.server;
  const fetch: typeof globalThis.fetch = async (input, init) => app.fetch(new Request(input, init));
  return createOpenAICompatible({ ...common, baseURL: insideURL, fetch });
}

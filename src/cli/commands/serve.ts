import { basename } from "node:path";
import { InvalidArgumentError, Option } from "commander";
import { UsageError } from "../../core/index.js";
import { directoryFiles, resolveModel } from "../../io/index.node.js";
import type { AdapterEntry, Listening } from "../../server/index.js";
import { namesOf } from "../../server/internal.js";
import type { CommandDefinition, CommonOptions, Context } from "../command.js";
import { bytes, integer } from "../numbers.js";
import {
  type AttentionOptions,
  attentionOptions,
  type MachineOptions,
  machineOptions,
  type ResidentOption,
  residentOptions,
  type WeightsOption,
  weightsOption,
} from "../options.js";
import { offloadOf } from "../session.js";

interface ServeOptions extends CommonOptions, MachineOptions, WeightsOption, AttentionOptions, ResidentOption {
  host: string;
  port: number;
  apiKey?: string[];
  cors?: string[];
  context: number;
  maxSequences: number;
  maxQueue: number;
  kvMemory: number;
  adapter?: AdapterChoice[];
  memoryLimit?: number;
  prefillChunk: number;
  sparseAlone: number;
  maxBody: number;
  requestTimeout: number;
  drainTimeout: number;
}

/** `[MODEL:]NAME=DIR` */
interface AdapterChoice {
  model?: string;
  name: string;
  directory: string;
}

/** Holds the keys where `--api-key` is not given: what is on a command line others on the machine can read. */
const keyVariable = "RAREFY_API_KEY";

export const command: CommandDefinition<ServeOptions> = {
  description:
    "Answers the OpenAI API over HTTP: /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, /v1/models, and " +
    "/health and /metrics. Many requests share a model: they run in one pass, and texts that begin alike share what was run of " +
    "them. A model is called by its Hub id or the name of its directory; NAME=MODEL gives it another name. Only this machine is " +
    `let in; --host 0.0.0.0 opens the server and wants a key, of --api-key or the variable ${keyVariable}. Ctrl-C or SIGTERM lets ` +
    "texts under way end.",
  arguments: [["MODEL...", "directory in Hugging Face layout, .gguf file or Hub id; or NAME= before one"]],
  options: [
    new Option("--host <address>", "address to listen on").default("127.0.0.1"),
    new Option("--port <n>", "port to listen on; 0 takes a free one")
      .argParser(integer({ min: 0, max: 65535 }))
      .default(8080),
    new Option("--api-key <key...>", `keys that clients must show one of (or ${keyVariable}, several with commas)`),
    new Option("--cors <origin...>", "pages of these origins may call the server; * for all"),
    new Option(
      "--adapter <name=dir...>",
      "LoRA adapters of PEFT or finetune --lora that requests may name as MODEL:NAME; where there are several models, " +
        "MODEL:NAME=DIR",
    ).argParser(adapterChoices),
    new Option("--context <n>", "tokens of a text at most, prompt and answer")
      .argParser(integer({ min: 1 }))
      .default(4096, "4096, or fewer positions of the model"),
    new Option("--max-sequences <n>", "texts that are run at the same time")
      .argParser(integer({ min: 1, max: 1024 }))
      .default(16),
    new Option("--max-queue <n>", "texts that wait; more are refused with 429")
      .argParser(integer({ min: 0 }))
      .default(64),
    new Option("--kv-memory <size>", "keys and values of all texts of a model").argParser(bytes).default(2 ** 31, "2G"),
    new Option("--memory-limit <size>", "all models together; those not used for longest make room").argParser(bytes),
    new Option("--prefill-chunk <n>", "tokens of prompts in one pass; more delay the texts that are being generated")
      .argParser(integer({ min: 1, max: 8192 }))
      .default(128),
    new Option(
      "--sparse-alone <n>",
      "so many sparse texts run one by one, where thresholds save reads; more in one pass",
    )
      .argParser(integer({ min: 0 }))
      .default(1),
    new Option("--max-body <size>", "bytes of a request").argParser(bytes).default(4 * 2 ** 20, "4M"),
    new Option("--request-timeout <s>", "seconds that an answer may take").argParser(integer({ min: 1 })).default(600),
    new Option("--drain-timeout <s>", "seconds that texts under way get when the server closes")
      .argParser(integer({ min: 0 }))
      .default(30),
    ...attentionOptions(),
    ...residentOptions(),
    weightsOption(),
    ...machineOptions(),
  ],
  examples: [
    "rarefy serve tiny-6m",
    "rarefy serve chat=Qwen/Qwen2.5-0.5B-Instruct small=./pruned --memory-limit 4G --port 8000",
    "rarefy serve tiny-6m --adapter sea=./tiny-lora",
    "RAREFY_API_KEY=secret rarefy serve Qwen/Qwen2.5-0.5B-Instruct --host 0.0.0.0",
  ],
  async run(context, options, args) {
    const keys = keysOf(options);
    const { createServer, isLoopback, listen, loopbackHosts } = await import("../../server/index.js");
    const local = isLoopback(options.host);
    if (!local && keys.length === 0) {
      throw new UsageError(`--host ${options.host} lets others in: give --api-key, or set ${keyVariable}`);
    }
    const { weights, device, threads, structure, attention, kv } = options;
    const named = args.map(namedModel);
    const adapters = adaptersByModel(
      named.map(({ id }) => id),
      options.adapter ?? [],
    );
    const models = named.map((model) => ({
      ...model,
      adapters: adapters.get(model.id),
      weights,
      device,
      threads,
      structure,
      attention,
      kv,
      offload: offloadOf(options),
    }));
    await using server = createServer({
      models,
      memoryLimit: options.memoryLimit,
      maxSequences: options.maxSequences,
      maxQueue: options.maxQueue,
      kvBytes: options.kvMemory,
      context: options.context,
      prefillChunk: options.prefillChunk,
      sparseAlone: options.sparseAlone,
      apiKeys: keys,
      corsOrigins: options.cors,
      // Who reaches only this machine by a name that is not its own came over a page elsewhere.
      hosts: local ? loopbackHosts : undefined,
      maxBodyBytes: options.maxBody,
      requestTimeoutMs: options.requestTimeout * 1000,
      onWarning: ({ file, field, problem }) => context.warn(`${file}: ${field}: ${problem}`),
      onError: (error) => context.complain(error instanceof Error ? (error.stack ?? error.message) : String(error)),
    });
    const { signal, onProgress } = context;
    // Under a limit the others come when they are asked for.
    const first = options.memoryLimit === undefined ? models : models.slice(0, 1);
    for (const { id } of first) await server.load(id, { signal, onProgress });
    const listening = await listen(server, options);
    const names = namesOf(models).map(([name]) => name);
    context.print(`${names.join(", ")}: ${listening.url}/v1\n`);
    await aborted(signal);
    const finished = await close(context, listening, options.drainTimeout * 1000);
    return { models: names, url: listening.url, finished };
  },
};

function keysOf({ apiKey }: ServeOptions): string[] {
  const keys = apiKey ?? process.env[keyVariable]?.split(",") ?? [];
  return keys.map((key) => key.trim()).filter((key) => key !== "");
}

/** `NAME=MODEL`, or a model whose name is its own. */
function namedModel(argument: string) {
  const [, name, model] = /^([\w.@-]+)=(.+)$/.exec(argument) ?? [];
  const argumentOf = model ?? argument;
  const isPath = /^[./~]|[\\]|\.gguf$/.test(argumentOf);
  return {
    id: name ?? (isPath ? basename(argumentOf).replace(/\.gguf$/, "") : argumentOf),
    files: (job: Parameters<typeof resolveModel>[1]) => resolveModel(argumentOf, job),
  };
}

function adapterChoices(text: string, before: AdapterChoice[] = []): AdapterChoice[] {
  const [, model, name, directory] = /^(?:(.+):)?([\w.@-]+)=(.+)$/.exec(text) ?? [];
  if (directory === undefined) {
    throw new InvalidArgumentError("Give NAME=DIR, or MODEL:NAME=DIR; a name has letters, digits and any of _.@-");
  }
  return [...before, { ...(model !== undefined && { model }), name, directory }];
}

/** @throws UsageError for an adapter of no model, or of one of several */
function adaptersByModel(ids: readonly string[], choices: readonly AdapterChoice[]): Map<string, AdapterEntry[]> {
  const found = new Map<string, AdapterEntry[]>(ids.map((id) => [id, []]));
  for (const { model, name, directory } of choices) {
    const of = model ?? (ids.length === 1 ? ids[0] : undefined);
    const list = of === undefined ? undefined : found.get(of);
    if (list === undefined) {
      throw new UsageError(`--adapter ${name}=${directory}: say of which model, as ${ids[0]}:${name}=${directory}`);
    }
    list.push({ name, files: () => directoryFiles(directory) });
  }
  return found;
}

const aborted = (signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });

async function close(context: Context, listening: Listening, timeoutMs: number): Promise<boolean> {
  context.note("Texts under way end; again Ctrl-C ends them now.");
  const finished = await listening.close(timeoutMs);
  if (!finished) context.warn("some texts did not end in time and were broken off");
  return finished;
}

import { isEncoder } from "../../arch/index.js";
import { type JobOptions, UsageError } from "../../core/index.js";
import { type ModelFiles, openCheckpoint, readAdapter, type Warning } from "../../io/index.js";
import { checkSound, describeDecoder, type LoadedAdapter, loadAdapter, packedMatrixBytes } from "../../model/index.js";
import { type OpenedModel, type OpenModelOptions, openModel } from "../../pipeline/index.js";
import { weightsOf } from "../../pipeline/internal.js";
import { type Attention, type KvChoice, type SamplingDefaults, samplingDefaults } from "../../runtime/index.js";
import { type ChatTemplate, loadChatTemplate, loadTokenizer, type Tokenizer } from "../../text/index.js";
import { Engine, type EngineObserver, type EngineOptions } from "../engine/engine.js";
import type { SharedRoom } from "../engine/memory.js";
import { Grammars } from "./grammars.js";
import { TokenTexts } from "./tokenText.js";
import { Variants } from "./variants.js";

/** A LoRA adapter that requests may ask a model for. */
export interface AdapterEntry {
  /** Requests call the model with it `MODEL:NAME`. */
  readonly name: string;
  /** Its files, in the layout of PEFT; called each time the model is loaded. */
  readonly files: (job: JobOptions) => Promise<ModelFiles> | ModelFiles;
}

/** A model that the server may load. */
export interface ModelEntry extends Omit<OpenModelOptions, keyof JobOptions> {
  /** The name that requests call it by. */
  readonly id: string;
  /** Its files; called each time it is loaded. */
  readonly files: (job: JobOptions) => Promise<ModelFiles> | ModelFiles;
  /** What texts run with where the request says nothing. */
  readonly attention?: Attention;
  readonly kv?: KvChoice;
  /** Loaded beside its weights; each text has one of them, or none. */
  readonly adapters?: readonly AdapterEntry[];
}

/** A model in memory, ready to answer. */
export interface ServedModel extends Disposable {
  /** As the request called it. */
  readonly id: string;
  /** What texts run with beside the weights: a name of `adapters`. */
  readonly adapter?: string;
  /** By name. */
  readonly adapters: ReadonlyMap<string, LoadedAdapter>;
  readonly opened: OpenedModel;
  readonly tokenizer: Tokenizer;
  readonly tokens: TokenTexts;
  readonly template: ChatTemplate | undefined;
  readonly defaults: SamplingDefaults["sampling"];
  readonly variants: Variants;
  readonly grammars: Grammars;
  /** Undefined for an encoder, which generates nothing. */
  readonly engine: Engine | undefined;
  /** Tokens of a text at most. */
  readonly context: number;
  readonly warnings: readonly Warning[];
}

/** What models that share a memory ask of it. */
export interface ModelRoom {
  /** Sees to it that a model fits whose weights take so many bytes, before they are loaded. @throws where it does not */
  weights(bytes: number): void;
  /** For the keys and values of its texts. */
  readonly texts: SharedRoom;
}

/** @throws what `openModel` and `loadTokenizer` throw */
export async function loadServedModel(
  { id, files: open, attention, kv, adapters: entries = [], ...how }: ModelEntry,
  options: EngineOptions,
  observer: EngineObserver,
  job: JobOptions = {},
  room?: ModelRoom,
): Promise<ServedModel> {
  const files = await open(job);
  const tokenizer = await loadTokenizer(files);
  const template = await loadChatTemplate(files);
  const { sampling, warnings } = await samplingDefaults(files);
  // Of what stays in a file, or is spread over processes, only loading tells what is held here.
  if (room !== undefined && how.offload === undefined && how.expertRanks === undefined) {
    room.weights(await packedBytes(files, how.weights));
  }
  const opened = await openModel(files, { ...how, ...job });
  const adapters = new Map<string, LoadedAdapter>();
  try {
    const { model } = opened;
    checkSound(model);
    if (isEncoder(model.config.spec) && entries.length > 0) {
      throw new UsageError(`${id} is an encoder: merge the adapter ${entries[0].name} (rarefy merge)`);
    }
    for (const { name, files } of entries) {
      adapters.set(name, await loadAdapter(model, await readAdapter(await files(job))));
    }
    const context = Math.min(options.context, model.config.maxPositions);
    const generates = !isEncoder(model.config.spec) && model.config.spec.head.kind === "vocabulary";
    const engine = generates ? new Engine(model, tokenizer, { ...options, context }, observer, room?.texts) : undefined;
    const grammars = new Grammars(tokenizer, model.config.vocabSize, model.config.eosTokenIds);
    return {
      id,
      adapters,
      opened,
      tokenizer,
      tokens: new TokenTexts(tokenizer),
      template,
      defaults: sampling,
      variants: new Variants(opened, { attention: attention ?? opened.attention, kv: kv ?? opened.kv }, adapters),
      grammars,
      engine,
      context,
      warnings: [...opened.warnings, ...tokenizer.warnings, ...warnings],
      [Symbol.dispose]() {
        engine?.[Symbol.dispose]();
        grammars[Symbol.dispose]();
        for (const adapter of adapters.values()) adapter[Symbol.dispose]();
        opened[Symbol.dispose]();
      },
    };
  } catch (error) {
    for (const adapter of adapters.values()) adapter[Symbol.dispose]();
    opened[Symbol.dispose]();
    throw error;
  }
}

/** Bytes of all matrices of a model as they will be packed. */
async function packedBytes(files: ModelFiles, weights: OpenModelOptions["weights"]): Promise<number> {
  const checkpoint = await openCheckpoint(files);
  try {
    const { config } = await describeDecoder(checkpoint);
    return packedMatrixBytes(checkpoint, config.spec, weightsOf(checkpoint.artifact, weights)).loaded;
  } finally {
    await checkpoint.close();
  }
}

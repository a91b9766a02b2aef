import { rm } from "node:fs/promises";
import type { ModelSpec } from "../arch/index.js";
import { UsageError } from "../core/index.js";
import { parseSchema } from "../core/internal.js";
import {
  type Adapter,
  artifactFileName,
  artifactVersion,
  type LocalModelFiles,
  serializeArtifact,
  writeAdapter,
} from "../io/index.js";
import { buildDirectory, type ModelDirectoryBuilder, modelDirectoryBuilder } from "../io/index.node.js";
import {
  type AdaptedObjective,
  type AdapterMethod,
  adaptedObjective,
  adapterMethods,
  type EngineDevice,
  modulesOf,
  type Objective,
  routedAdapterMethods,
  routedObjective,
  type StreamedBase,
  streamedObjective,
  type TraceOptions,
  type Values,
} from "../train/index.js";
import { randomFor } from "../train/internal.js";
import { configHash } from "./source.js";
import type { TrainableModel } from "./trainableModel.js";

/** What is trained beside weights that stay. */
export interface AdapterSettings {
  /** One of `adapterMethods` or `routedAdapterMethods`. */
  kind: string;
  /** Options of the kind, as its schema has them. */
  options: Record<string, unknown>;
  /** Matrices of the blocks, by role or by the last part of their names. Default: those of the kind's paper. */
  targets?: readonly string[];
  /** Zeros of these matrices stay zeros. The result is a model then: elsewhere, an adapter would fill them. */
  keepZeros?: boolean;
  /** Write the model with what was learnt in its weights, and not the adapter alone. */
  merge?: boolean;
  /** Leave the weights as they are stored, and decode one block at a time. */
  stream?: boolean;
}

const defaultTargets: Readonly<Record<string, readonly string[]>> = {
  lora: ["q_proj", "v_proj"],
  ia3: ["k_proj", "v_proj", "down_proj"],
  molora: ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
  mov: ["k_proj", "v_proj", "down_proj"],
};

/** Whether an adapter weighs its experts for every token, so that no weights do the same. @throws UsageError for a kind that there is not */
export function isRouted({ kind }: AdapterSettings): boolean {
  const [plain, routed] = [adapterMethods, routedAdapterMethods].map((methods) => Object.hasOwn(methods, kind));
  if (plain || routed) return routed;
  const kinds = [adapterMethods, routedAdapterMethods].flatMap((methods) => Object.keys(methods));
  throw new UsageError(`there is no adapter ${kind}; there are ${kinds.join(", ")}`);
}

/** An adapter that is trained, and how it is written. */
export interface AdapterTraining {
  objective: AdaptedObjective;
  /** For the record. */
  settings: object;
  adapter(values: Values): Adapter;
}

/**
 * @param base the loss of all weights, or what it is made of, for what is not trained through that
 * @throws UsageError for a kind or options that there are not, and for targets that the model does not have
 */
export async function adapterTraining(
  base: Objective | StreamedBase | TracedBase,
  spec: ModelSpec,
  { weights, parameters, files }: TrainableModel,
  settings: AdapterSettings,
  seed: number,
): Promise<AdapterTraining> {
  const { kind, options: raw, targets = defaultTargets[kind], keepZeros = false, stream = false } = settings;
  const random = randomFor(seed, "weights");
  const modules = modulesOf(spec, targets);
  let objective: AdaptedObjective;
  let own: { options: object; adapter(values: Values): Adapter };
  if (isRouted(settings)) {
    const { method } = await routedAdapterMethods[kind]();
    const options = parsedOptions(kind, method, raw);
    const { window, device, trace } = base as TracedBase;
    const beside = { spec, parameters, frozen: weights, window, device, options: trace };
    objective = await routedObjective(beside, modules, method, options, random);
    own = { options, adapter: (values) => method.adapter(modules, values, options) };
  } else {
    const { method } = await adapterMethods[kind]();
    const options = parsedOptions(kind, method, raw);
    objective =
      "checkpoint" in base
        ? await streamedObjective(base, modules, method, options, random)
        : adaptedObjective(base as Objective, weights, modules, method, options, random, keepZeros);
    own = { options, adapter: (values) => method.adapter(modules, values, options) };
  }
  return {
    objective,
    settings: { kind, ...own.options, targets, ...(keepZeros && { keepZeros }), ...(stream && { stream }) },
    adapter: (values) => ({ ...own.adapter(values), base: files.location }),
  };
}

/** What a loss is made of that is traced together with its adapter. */
export interface TracedBase {
  window: number;
  device: EngineDevice;
  trace: TraceOptions;
}

/** @throws UsageError */
function parsedOptions(kind: string, method: Pick<AdapterMethod, "options">, raw: Record<string, unknown>): object {
  const parsed = parseSchema(method.options, raw);
  if (parsed.success) return parsed.data as object;
  const [{ path, message }] = parsed.error.issues;
  throw new UsageError(`the adapter ${kind}: ${[...path.map(String), message].join(": ")}`);
}

/** Writes an adapter directory with a record of how it was made. */
export async function buildAdapter(
  directory: string,
  { files }: TrainableModel,
  adapter: Adapter,
  record: Readonly<Record<string, unknown>>,
  pages: Readonly<Record<string, string>>,
): Promise<void> {
  await rm(directory, { recursive: true, force: true });
  await buildDirectory(directory, async (place) => {
    const builder = modelDirectoryBuilder(place);
    for (const [name, text] of Object.entries(pages)) await builder.add(name, new TextEncoder().encode(text));
    await addAdapter(builder, files, adapter, record);
  });
}

/** Puts an adapter for a model into a directory, and a rarefy.json that says how it was made. */
export async function addAdapter(
  builder: ModelDirectoryBuilder,
  files: LocalModelFiles,
  adapter: Adapter,
  record: Readonly<Record<string, unknown>>,
): Promise<void> {
  await writeAdapter(builder.sinks, adapter);
  const source = { location: files.location, configSha256: await configHash(files) };
  const artifact = { rarefy: artifactVersion, origin: { training: record }, source } as const;
  await builder.add(artifactFileName, serializeArtifact(artifact));
}

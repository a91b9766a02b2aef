import { type JobOptions, UsageError } from "../core/index.js";
import {
  type LocalModelFiles,
  type LoraAdapter,
  readAdapter,
  readArtifact,
  sha256Hex,
  trainingOf,
} from "../io/index.js";
import { claimOutput, directoryFiles, modelDirectoryBuilder } from "../io/index.node.js";
import { decoderObjective, type EngineDevice, loraHub, meanLoss, searches, stopEngine } from "../train/index.js";
import { randomFor } from "../train/internal.js";
import { addAdapter } from "./adapterTraining.js";
import { fingerprintOf } from "./source.js";
import { loadTrainable } from "./trainableModel.js";
import { hashOf, isMasked, type TrainingTokens, windowsOf } from "./trainingTokens.js";
import { packageVersion } from "./version.js";

/** How LoRA adapters are combined for a new task, and on what. */
export interface LoraHubToDirectoryOptions extends JobOptions {
  /** Few examples of the task, asked for once everything that is cheap to check is right. */
  tokens(): Promise<TrainingTokens>;
  /** Tokens of an example. */
  window: number;
  /** Examples at most, from the first one. */
  maxWindows: number;
  /** An id of `searches`. */
  optimizer: string;
  /** How often the loss is measured, that of the model without adapters counted. */
  evaluations: number;
  /** Largest weight of an adapter. */
  bound: number;
  /** What mean |w| is multiplied by and added to the loss. */
  penalty: number;
  /** Decides the points that are looked at. */
  seed: number;
  /** Where losses are computed. */
  device: EngineDevice;
  /** Replace the finished result of something else. */
  force?: boolean;
}

/** What a combination came to; all but `output` is its record in the result's rarefy.json. */
export interface LoraHubDirectory {
  output: string;
  model: string;
  adapters: string[];
  /** One for each adapter. */
  weights: number[];
  /** Examples that the loss is the mean over. */
  examples: number;
  /** Nats per token of the model with the combination. */
  loss: number;
  /** Of the model alone. */
  lossBefore: number;
  /** The settings that decide the weights. */
  [setting: string]: unknown;
}

/**
 * Looks for the weights by which several LoRA adapters make one for a new task (LoraHub) and writes that one in the layout of
 * PEFT, whole or not at all.
 * @throws UsageError, FormatError, ProblemsError, BusyError, StorageError before the search begins
 */
export async function loraHubToDirectory(
  files: LocalModelFiles,
  adapterFiles: readonly LocalModelFiles[],
  output: string,
  options: LoraHubToDirectoryOptions,
): Promise<LoraHubDirectory> {
  try {
    return await searchAndWrite(files, adapterFiles, output, options);
  } finally {
    await stopEngine(options.device);
  }
}

async function searchAndWrite(
  files: LocalModelFiles,
  adapterFiles: readonly LocalModelFiles[],
  output: string,
  options: LoraHubToDirectoryOptions,
): Promise<LoraHubDirectory> {
  const { optimizer, evaluations, bound, penalty, seed, window, maxWindows, device, force, signal, onProgress } =
    options;
  const job = { signal, onProgress };
  if (!Object.hasOwn(searches, optimizer)) {
    throw new UsageError(`there is no optimizer ${optimizer}; there are ${Object.keys(searches).join(", ")}`);
  }
  const { search } = await searches[optimizer]();
  const adapters = await Promise.all(adapterFiles.map(readLora));
  const inputs = [files, ...adapterFiles].map(({ directory }) => directory);
  await using claimed = await claimOutput(output, { inputs, force });
  const tokens = await options.tokens();
  // One at a time: the loss is the mean over examples, however long each is.
  const windows = windowsOf(tokens, { window, batch: 1, seed });
  const made = {
    command: "lorahub",
    model: files.location,
    adapters: adapterFiles.map(({ location }) => location),
    device,
    tokens: await hashOf(tokens),
    examples: Math.min(windows.count, maxWindows),
    window,
    optimizer,
    evaluations,
    bound,
    penalty,
    seed,
  };
  const what = {
    version: packageVersion(),
    made,
    source: await fingerprintOf(files, job),
    adapters: await Promise.all(adapters.map(hashOfAdapter)),
  };
  const owner = { command: "lorahub", job: await sha256Hex(JSON.stringify(what)) };
  if (claimed.accept(owner)) {
    const artifact = await readArtifact({ files: directoryFiles(output), location: output });
    return { output, ...trainingOf(artifact!) } as LoraHubDirectory;
  }
  const model = await loadTrainable(files, { routerOption: {}, batch: 1, window }, job);
  const { config, parameters, weights, mixture } = model;
  const control = mixture?.control;
  using objective = await decoderObjective(config.spec, parameters, window, device, {
    router: mixture?.router,
    ...(isMasked(tokens) && { masked: true }),
  });
  const found = await loraHub(
    config.spec,
    weights,
    adapters,
    (all) => meanLoss(objective, all, windows, maxWindows, { signal, control }),
    { search, evaluations, bound, penalty, random: randomFor(seed, "search"), ...job },
  );
  const { adapter, loss, lossBefore } = found;
  const record = { ...made, weights: [...found.weights], loss, lossBefore };
  await claimed.build(owner, async (directory) => {
    const builder = modelDirectoryBuilder(directory, job);
    await addAdapter(builder, files, { ...adapter, base: files.location }, record);
    signal?.throwIfAborted();
  });
  return { output, ...record };
}

/** @throws UsageError for factors and mixtures, which cannot be added like pairs */
async function readLora(files: LocalModelFiles): Promise<LoraAdapter> {
  const adapter = await readAdapter(files);
  if (adapter.kind === "lora") return adapter;
  throw new UsageError(`${files.location} holds ${otherThanPairs[adapter.kind]}; LoraHub adds up pairs of LoRA`);
}

const otherThanPairs = { ia3: "factors of IA³", molora: "a mixture of pairs", mov: "a mixture of factors" } as const;

async function hashOfAdapter({ modules }: LoraAdapter): Promise<string> {
  const parts: unknown[] = [];
  for (const [name, { a, b, scale }] of modules) {
    parts.push([name, scale, await sha256Hex(a), await sha256Hex(b)]);
  }
  return sha256Hex(JSON.stringify(parts));
}

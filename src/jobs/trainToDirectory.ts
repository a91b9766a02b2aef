import { rm } from "node:fs/promises";
import { basename } from "node:path";
import type { ModelConfig } from "../arch/index.js";
import { type JobOptions, median, UsageError } from "../core/index.js";
import {
  artifactFileName,
  artifactVersion,
  type Checkpoint,
  isCompanionFile,
  type LocalModelFiles,
  openCheckpoint,
  readArtifact,
  serializeArtifact,
  sha256Hex,
  trainingOf,
} from "../io/index.js";
import { buildDirectory, claimOutput, directoryFiles, modelDirectoryBuilder } from "../io/index.node.js";
import { jsonBytes } from "../io/internal.js";
import { lineChart, svgFile } from "../report/internal.js";
import {
  type Batch,
  contextControl,
  contextPruningSettings,
  controllerControl,
  decoderObjective,
  type FloatArray,
  gateControl,
  joinControls,
  type LogRecord,
  meanLoss,
  parseLayerGates,
  runTraining,
  stopEngine,
  Training,
  writeWeights,
} from "../train/index.js";
import { randomFor, writeTexts } from "../train/internal.js";
import { type AdapterSettings, adapterTraining, buildAdapter, isRouted } from "./adapterTraining.js";
import { RunDirectory } from "./runDirectory.js";
import { configHash, fingerprintOf, plainConfig } from "./source.js";
import { openTeacher, type Teacher } from "./teacher.js";
import { loadTrainable, randomModel, streamedModel, type TrainableModel } from "./trainableModel.js";
import {
  checkNumbers,
  matchingOptions,
  methodOf,
  miniLlmOptions,
  optimizerOf,
  type TrainingSettings,
  trainingDefaults,
} from "./trainingSettings.js";
import { checkFitsModel, hashOf, isMasked, type TrainingTokens, windowsOf } from "./trainingTokens.js";
import { packageVersion } from "./version.js";

const evaluationWindows = 64;

/** How to train, on what, and what to keep of it. */
export interface TrainToDirectoryOptions extends Partial<TrainingSettings>, JobOptions {
  /** Where training begins: at the weights of the model, or at random ones of its shape. Decides `trainingDefaults`. */
  from: keyof typeof trainingDefaults;
  /** Tokens of the text, u32, or records; asked for once everything that is cheap to check is right. */
  tokens(): Promise<TrainingTokens>;
  /** Those to measure the perplexity on, before and after. */
  evaluationTokens?(): Promise<TrainingTokens>;
  /** Learnt from with `distil` or `match`. Default: the model itself, as it was before training. */
  teacher?: LocalModelFiles;
  /** Train an adapter and let the weights stay. Default: the weights are trained. */
  adapter?: AdapterSettings;
  /** Stored type of the trained weights. Default: that of the model; f32 from random ones. */
  dtype?: "f32" | "bf16";
  /** Replace the finished result of something else. */
  force?: boolean;
  /** Threads of the CPU, where it computes gradients by kernels of our own; the weights do not depend on it. Default: the machine's. */
  threads?: number;
  /** Steps between two stored states; an abort stores one too. Default 100. */
  saveEvery?: number;
  /** Told when a stopped run goes on, at which step. */
  onResume?(step: number): void;
}

/** What a training run came to; all but `output` is the record of the training in the result's rarefy.json. */
export interface TrainedDirectory {
  output: string;
  model: string;
  command: "train" | "finetune";
  steps: number;
  tokensSeen: number;
  /** Nats per token, of the last step. */
  finalLoss: number;
  /** From the median step. */
  tokensPerSecond: number;
  /** Share of zeros in linear weights. */
  sparsity: number;
  perplexityBefore?: number;
  perplexityAfter?: number;
  /** The settings that decide the weights. */
  [setting: string]: unknown;
}

/**
 * Trains a language model and writes it as a model directory, whole or not at all. Until then the run lies in `output.run`: the
 * same call goes on with what a killed or stopped one left there, to the same weights, bit for bit.
 * @throws UsageError, BusyError, StorageError before anything is trained; UsageError when the loss is no longer finite
 * @example
 * await trainToDirectory(directoryFiles("tiny-pruned"), "tiny-recovered", {
 *   from: "weights",
 *   tokens: async () => (await tokenizeText(tokenizer, text)).tokens,
 * });
 */
export async function trainToDirectory(
  files: LocalModelFiles,
  output: string,
  options: TrainToDirectoryOptions,
): Promise<TrainedDirectory> {
  const whole = withDefaults(options);
  checkNumbers(whole);
  try {
    return await trainAndWrite(files, output, whole);
  } finally {
    await stopEngine(whole.device);
  }
}

type WholeOptions = TrainToDirectoryOptions & TrainingSettings & { saveEvery: number };

/** A setting that is given as undefined is not given. */
function withDefaults(options: TrainToDirectoryOptions): WholeOptions {
  if (!Object.hasOwn(trainingDefaults, options.from))
    throw new UsageError(`training begins from ${Object.keys(trainingDefaults).join(" or ")}, not ${options.from}`);
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  return { saveEvery: 100, ...trainingDefaults[options.from], ...given } as WholeOptions;
}

async function trainAndWrite(files: LocalModelFiles, output: string, options: WholeOptions): Promise<TrainedDirectory> {
  const { signal, onProgress, inputDensity, from, teacher: teacherFiles, adapter } = options;
  const { distil, distilLoss = "kl", temperature = 1 } = options;
  const miniLlm = distilLoss === "minillm" ? miniLlmOptions(options) : undefined;
  const match = options.match && matchingOptions(options.match);
  const contextPruning = options.contextPruning && contextPruningSettings(options.contextPruning);
  const gates = options.layerGates === undefined ? undefined : parseLayerGates(options.layerGates);
  const steering = { signal, onProgress };
  const command = from === "weights" ? "finetune" : "train";
  // Asked first: training may take hours.
  checkDistillation(options);
  checkAdapter(options);
  if (contextPruning !== undefined && from === "random")
    throw new UsageError("context pruning is trained beside weights that are there: use finetune");
  if (contextPruning !== undefined && gates !== undefined)
    throw new UsageError("layers have gates or prune their context; leave `layerGates` or `contextPruning` out");
  await using claimed = await claimOutput(output, { inputs: [files.directory], force: options.force });
  const run = new RunDirectory(`${claimed.target}.run`, options.steps);
  await run.check();
  const { method, settings } = await methodOf(options);
  const tokens = await options.tokens();
  const evaluationTokens = await options.evaluationTokens?.();
  const masked = [tokens, evaluationTokens].some((data) => data !== undefined && isMasked(data));
  // Prompts of records have any length, and what fills a window behind them is nothing to be like.
  const unfit = miniLlm ? "`distilLoss` minillm" : match ? "`match`" : undefined;
  if (masked && unfit !== undefined)
    throw new UsageError(`records are learnt as they are; let the teacher write them, and leave ${unfit} out`);
  if (masked && adapter?.stream) throw new UsageError("records need all weights in memory; leave `stream` out");
  const windows = windowsOf(tokens, options);
  const evaluation = evaluationTokens && windowsOf(evaluationTokens, options);

  const check = (config: ModelConfig) => checkFitsModel(config, options.window, [tokens, evaluationTokens]);

  await using source = adapter?.stream ? await openSource(files) : undefined;
  const model = await (source !== undefined
    ? streamedModel(files, source.checkpoint)
    : from === "weights"
      ? loadTrainable(files, { ...options, contextPruning, gates }, { ...steering, check })
      : randomModel(files, options, gates));
  const { config, parameters, mixture } = model;
  check(config);
  const { window, device, threads } = options;
  const base = source && { checkpoint: source.checkpoint, spec: config.spec, window, device };
  const control = joinControls(
    mixture?.control,
    contextPruning && contextControl(contextPruning, options.steps),
    gates && gateControl(gates, options.steps),
    controllerControl(config.spec, options.batch * options.window, options.seed),
  );
  const linear = new Set(parameters.filter(({ role }) => role !== "dense").map(({ name }) => name));
  const optimizer = optimizerOf(options, (name) => linear.has(name));
  const wanted = { logits: distil !== undefined && miniLlm === undefined, match };
  const isTaught = distil !== undefined || match !== undefined;
  using teacher = isTaught ? await openTeacher(model, teacherFiles, wanted, options) : undefined;
  const trace = {
    router: mixture?.router,
    // All inputs are the dense model, which has kernels.
    inputDensity: inputDensity === 1 ? undefined : inputDensity,
    ...(masked && { masked: true as const }),
    ...(distil !== undefined && { distillation: { share: distil, temperature, loss: distilLoss, miniLlm } }),
    matching: teacher?.matching,
  };
  const isTraced = adapter !== undefined && isRouted(adapter);
  using whole =
    base === undefined && !isTraced
      ? await decoderObjective(config.spec, parameters, window, device, { ...trace, teacher: teacher?.model, threads })
      : undefined;
  if (!whole?.hasTeacher) await teacher?.open();
  const beside = base ?? whole ?? { window, device, trace };
  const adapting = adapter && (await adapterTraining(beside, config.spec, model, adapter, options.seed));
  using _own = whole === undefined ? adapting?.objective : undefined;
  const [objective, weights] = adapting ? [adapting.objective, adapting.objective.first] : [whole!, model.weights];
  // They are no part of the model, and are left out where it is written.
  for (const [name, values] of teacher?.projections ?? []) weights.set(name, values);
  const perplexity = async (values: ReadonlyMap<string, FloatArray>) =>
    evaluation && Math.exp(await meanLoss(objective, values, evaluation, evaluationWindows, { ...steering, control }));

  const made = {
    command,
    model: files.location,
    device: options.device,
    tokens: await hashOf(tokens),
    steps: options.steps,
    batch: options.batch,
    window: options.window,
    rate: options.rate,
    finalRate: options.finalRate ?? options.rate / 10,
    warmup: options.warmup,
    weightDecay: options.weightDecay,
    clip: options.clip,
    seed: options.seed,
    method: method.id,
    methodOptions: settings,
    ...(mixture && { router: mixture.router.routing, routerOptions: mixture.settings }),
    ...(inputDensity !== undefined && { inputDensity }),
    ...(contextPruning && { contextPruning: { ...contextPruning, rank: config.blocks[0].contextRank } }),
    ...(gates && { layerGates: { kind: gates.name, ...gates.values } }),
    ...(adapting && { adapter: adapting.settings, ...(adapter?.merge && { merge: true }) }),
    ...(distil !== undefined && { distil, distilLoss, temperature, ...(miniLlm && { miniLlm }) }),
    ...(match && { match }),
    ...(teacher && { teacher: teacher.location }),
  };
  const job = await jobOf(made, files, options, evaluationTokens);
  const owner = { command, job };
  if (claimed.accept(owner)) {
    // It was killed between its last two steps.
    await run.remove();
    return resultIn(output);
  }
  const stored = await run.open(job);
  const before = stored?.perplexityBefore ?? (await perplexity(model.before ?? weights));
  const training = new Training({
    objective,
    weights,
    optimizer,
    steps: options.steps,
    seed: options.seed,
    method: (start) => method.start(start, settings),
    control,
    onDevice: true,
  });
  if (stored !== undefined) {
    training.restore(stored.state);
    options.onResume?.(training.step);
  }
  const writersOf = (training: Training, { predict }: Teacher) => ({
    student: (batch: Batch) => training.predict({ ...batch, ...control?.arrays() }),
    teacher: predict,
    vocabSize: config.vocabSize,
    window: options.window,
  });
  const log = await run.openLog(training.step);
  await runTraining({
    training,
    batch: async (step) => {
      const batch = windows.batch(step);
      if (teacher === undefined || whole?.hasTeacher) return batch;
      const taught = await teacher.teach(batch);
      return miniLlm === undefined
        ? taught
        : writeTexts(taught, writersOf(training, teacher), miniLlm, randomFor(options.seed, "texts", step));
    },
    steps: options.steps,
    rate: optimizer.rate,
    onStep: (record) => log.add(record),
    saveEvery: options.saveEvery,
    save: async () => {
      await log.flush();
      await training.synchronise();
      await run.save(job, training, before);
    },
    ...steering,
  });
  await log.flush();
  await training.synchronise();
  training.finish();
  const after = await perplexity(weights);
  const effective = adapting?.objective.effective(weights) ?? weights;
  const stepMs = log.records.map(({ elapsedMs }) => elapsedMs);
  const record = {
    ...made,
    tokensSeen: options.steps * options.batch * options.window,
    finalLoss: log.records.at(-1)!.loss,
    tokensPerSecond: (1000 * options.batch * options.window) / median(stepMs),
    sparsity: zeroShare(effective, linear),
    ...(before !== undefined && { perplexityBefore: before, perplexityAfter: after }),
  };
  // Built where a killed process leaves nothing behind, then put in its place.
  const pages = logPages(log.records, basename(claimed.target));
  const isModel = adapter === undefined || adapter.merge || adapter.keepZeros;
  if (isModel) await buildModel(run.modelDirectory, { ...model, weights: new Map(effective) }, options, record, pages);
  else await buildAdapter(run.modelDirectory, model, adapting!.adapter(weights), record, pages);
  await claimed.place(run.modelDirectory, owner);
  await run.remove();
  return { output, ...record } as TrainedDirectory;
}

function checkAdapter(options: TrainToDirectoryOptions): void {
  const { adapter, method, from, distil, match, inputDensity, contextPruning, layerGates } = options;
  if (adapter === undefined) return;
  if (layerGates !== undefined)
    throw new UsageError("an adapter leaves the model as it is; leave `layerGates` out, or the adapter");
  if (contextPruning !== undefined)
    throw new UsageError("an adapter leaves the model as it is; leave `contextPruning` out, or the adapter");
  if (from === "random") throw new UsageError("an adapter is trained beside weights that are there: use finetune");
  if (method !== "dense")
    throw new UsageError(`an adapter leaves the weights as they are; leave \`method\` ${method} out`);
  if (isRouted(adapter)) checkRouted(adapter);
  if (isRouted(adapter) && match !== undefined)
    throw new UsageError(
      `\`match\` has matrices of its own to train, an adapter (${adapter.kind}) others; leave one out`,
    );
  if (!adapter.stream) return;
  const other = (
    [
      [adapter.merge, "`merge`"],
      [adapter.keepZeros, "`keepZeros`"],
      [distil, "`distil`"],
      [match, "`match`"],
      [inputDensity, "`inputDensity`"],
    ] as const
  ).find(([given]) => given !== undefined && given !== false);
  if (other !== undefined) throw new UsageError(`${other[1]} needs all weights in memory; leave \`stream\` out`);
}

/** @throws UsageError for what only an adapter can do that is the same for every token */
function checkRouted({ kind, merge, keepZeros, stream }: AdapterSettings): void {
  if (merge || keepZeros) {
    const flag = merge ? "`merge`" : "`keepZeros`";
    throw new UsageError(
      `a router weighs the experts of ${kind} anew for every token, so that no weights do the same; leave ${flag} out`,
    );
  }
  if (stream) throw new UsageError(`${kind} is trained with the whole model in memory; leave \`stream\` out`);
}

/** A checkpoint that stays open while its weights are decoded, again and again. */
async function openSource(files: LocalModelFiles): Promise<{ checkpoint: Checkpoint } & AsyncDisposable> {
  const checkpoint = await openCheckpoint(files);
  return { checkpoint, [Symbol.asyncDispose]: () => checkpoint.close() };
}

function checkDistillation(options: TrainToDirectoryOptions): void {
  const { distil, distilLoss, temperature, teacher, from, miniLlm, match } = options;
  if (miniLlm !== undefined && Object.keys(miniLlm).length > 0 && distilLoss !== "minillm")
    throw new UsageError("`miniLlm` belongs to `distilLoss` minillm");
  if (distil === undefined && [temperature, distilLoss].some((given) => given !== undefined))
    throw new UsageError("`temperature` and `distilLoss` belong to `distil`");
  const learning = distil !== undefined ? "`distil`" : match !== undefined ? "`match`" : undefined;
  if (learning === undefined && teacher !== undefined) throw new UsageError("`teacher` belongs to `distil` or `match`");
  if (learning !== undefined && teacher === undefined && from === "random") {
    throw new UsageError(`${learning} needs a \`teacher\` here: random weights have nothing to teach`);
  }
}

/** SHA-256 over all that decides the result. */
async function jobOf(
  made: object,
  files: LocalModelFiles,
  { from, dtype, teacher, signal, onProgress }: TrainToDirectoryOptions,
  evaluationTokens: TrainingTokens | undefined,
): Promise<string> {
  const job = { signal, onProgress };
  const what = {
    version: packageVersion(),
    made,
    source: from === "weights" ? await fingerprintOf(files, job) : await configHash(files),
    teacher: teacher === undefined ? null : await fingerprintOf(teacher, job),
    evaluation: evaluationTokens === undefined ? null : await hashOf(evaluationTokens),
    dtype: dtype ?? null,
  };
  return sha256Hex(JSON.stringify(what));
}

/** What a finished run came to, from its record. */
async function resultIn(output: string): Promise<TrainedDirectory> {
  const artifact = await readArtifact({ files: directoryFiles(output), location: output });
  return { output, ...trainingOf(artifact!) } as TrainedDirectory;
}

/**
 * The config.json of what was trained: without what it says of how weights were stored, and with how a Mixtral's routers were
 * trained to choose; undefined where it stays as it is.
 */
async function changedConfig(
  files: LocalModelFiles,
  mixture: TrainableModel["mixture"],
): Promise<Uint8Array | undefined> {
  const routing = mixture?.router.routing ?? "own";
  const { raw, plain } = await plainConfig(files);
  const { router_type: before = "softmax", ...config } = plain;
  const isRouted = config.model_type === "mixtral" && routing !== "own" && routing !== before;
  if (!isRouted && Object.keys(plain).length === Object.keys(raw).length) return undefined;
  const changed = isRouted ? { ...config, ...(routing !== "softmax" && { router_type: routing }) } : plain;
  return jsonBytes(changed);
}

async function buildModel(
  directory: string,
  { files, parameters, weights, dtypeOf, declarations, blocks, mixture }: TrainableModel,
  { dtype, signal, onProgress }: JobOptions & { dtype?: "f32" | "bf16" },
  record: Readonly<Record<string, unknown>>,
  pages: Readonly<Record<string, string>>,
): Promise<void> {
  const job = { signal, onProgress };
  const configSha256 = await configHash(files);
  const stored = { f32: "F32", bf16: "BF16" } as const;
  await rm(directory, { recursive: true, force: true });
  await buildDirectory(directory, async (place) => {
    const builder = modelDirectoryBuilder(place, job);
    const config = await changedConfig(files, mixture);
    await builder.takeOver(files, (name) => isCompanionFile(name) || (name === "config.json" && config === undefined));
    if (config !== undefined) await builder.add("config.json", config);
    const decided = mixture?.tensors ?? new Map<string, Float32Array>();
    const packed = await writeWeights(
      builder.sinks,
      [
        ...parameters.filter(({ ref }) => !decided.has(ref.tensor)),
        ...Array.from(decided, ([name, { length }]) => ({ name, ref: { tensor: name, shape: [length] } })),
      ],
      new Map<string, FloatArray>([...weights, ...decided]),
      (name) => (decided.has(name) ? "F32" : dtype ? stored[dtype] : dtypeOf(name)),
      { ...job, isPacked: (name) => name in declarations },
    );
    // Matrices in factors stay in them; their parts are what was trained.
    const factored = Object.entries(declarations).flatMap(([name, declared]) =>
      declared.encoding === "factors"
        ? [[name, dtype ? { ...declared, values: stored[dtype] } : declared] as const]
        : [],
    );
    const tensors = { ...packed, ...Object.fromEntries(factored) };
    for (const [name, text] of Object.entries(pages)) await builder.add(name, new TextEncoder().encode(text));
    await builder.add(
      artifactFileName,
      serializeArtifact({
        rarefy: artifactVersion,
        blocks,
        ...(Object.keys(tensors).length > 0 && { tensors }),
        origin: { training: record },
        source: { location: files.location, configSha256 },
      }),
    );
  });
}

/** Files that lie with a result and tell how it came about. */
const logPages = (records: readonly LogRecord[], name: string) => ({
  "training.jsonl": `${records.map((record) => JSON.stringify(record)).join("\n")}\n`,
  "training.svg": lossCurve(records, name),
});

function lossCurve(records: readonly LogRecord[], name: string): string {
  const every = Math.max(1, Math.floor(records.length / 500));
  const points = records.filter((_, i) => i % every === 0).map(({ step, loss }) => [step, loss] as const);
  return svgFile(
    lineChart([{ name: "training loss", points }], { title: name, xLabel: "step", yLabel: "nats per token" }),
  );
}

function zeroShare(weights: ReadonlyMap<string, FloatArray>, names: ReadonlySet<string>): number {
  let zeros = 0;
  let all = 0;
  for (const name of names) {
    const values = weights.get(name)!;
    for (let i = 0; i < values.length; i++) if (values[i] === 0) zeros++;
    all += values.length;
  }
  return all === 0 ? 0 : zeros / all;
}

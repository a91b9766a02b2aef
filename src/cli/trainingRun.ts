import { basename } from "node:path";
import { UsageError } from "../core/index.js";
import { artifactFileName, isCompanionFile, serializeArtifact, sha256Hex } from "../io/index.js";
import { buildModelDirectory, claimOutput } from "../io/index.node.js";
import { lineChart, svgFile } from "../report/internal.js";
import { loadTokenizer } from "../text/index.js";
import {
  decoderObjective,
  type FloatArray,
  type LogRecord,
  meanLoss,
  runTraining,
  stopEngine,
  TokenWindows,
  Training,
  tokenizeDocuments,
  trainMethods,
  writeWeights,
} from "../train/index.js";
import { readTrainingText } from "../train/index.node.js";
import type { Context } from "./command.js";
import { digits, facts } from "./format.js";
import { RunDirectory } from "./runDirectory.js";
import { openTeacher } from "./teacher.js";
import type { TrainableModel } from "./trainableModel.js";
import { optimizerOf, type TrainingCommandOptions } from "./trainingOptions.js";

const evaluationWindows = 64;

/** Trains a language model and writes it as a model directory; goes on with a run that was stopped. */
export async function trainingRun(
  context: Context,
  command: string,
  model: TrainableModel,
  options: TrainingCommandOptions,
): Promise<object> {
  try {
    return await trainAndWrite(context, command, model, options);
  } finally {
    await stopEngine(options.device);
  }
}

async function trainAndWrite(
  context: Context,
  command: string,
  model: TrainableModel,
  options: TrainingCommandOptions,
): Promise<object> {
  const { signal } = context;
  const { files, config, parameters, weights, mixture } = model;
  const { inputDensity, distil, temperature = 1 } = options;
  const control = mixture?.control;
  // Asked first: training may take hours.
  const output = await claimOutput(options.output, [files.directory]);
  const { method, settings } = await methodOf(options);
  const tokenizer = await loadTokenizer(files);
  const tokensOf = async (path: string, maxTokens?: number) =>
    tokenizeDocuments(tokenizer, await readTrainingText(path, signal), { ...context, maxTokens });
  const windowsOf = (tokens: Uint32Array, batch = options.batch) =>
    new TokenWindows(tokens, options.window, batch, options.seed);
  const tokens = await tokensOf(options.text, options.maxTokens);
  const windows = windowsOf(tokens);
  const evaluation = options.evalText === undefined ? undefined : windowsOf(await tokensOf(options.evalText));

  const linear = new Set(parameters.filter(({ role }) => role !== "dense").map(({ name }) => name));
  const optimizer = optimizerOf(options, (name) => linear.has(name));
  using objective = await decoderObjective(config, parameters, options.window, options.device, {
    moe: mixture?.moe,
    inputDensity,
    ...(distil !== undefined && { distillation: { share: distil, temperature } }),
  });
  using teacher = await openTeacher(context, model, options);
  const perplexity = async (values: ReadonlyMap<string, FloatArray>) =>
    evaluation && Math.exp(await meanLoss(objective, values, evaluation, evaluationWindows, { ...context, control }));

  const run = new RunDirectory(`${output.target}.run`, {
    command,
    model: files.location,
    device: options.device,
    tokens: await sha256Hex(new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength)),
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
    ...(mixture && { router: mixture.moe.routing, routerOptions: mixture.settings }),
    ...(inputDensity !== undefined && { inputDensity }),
    ...(teacher && { distil, temperature, teacher: teacher.location }),
  });
  const stored = await run.open();
  const before = stored?.perplexityBefore ?? (await perplexity(weights));
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
    context.note(`Going on at step ${training.step} of ${options.steps}`);
  }
  const log = await run.openLog(training.step);
  await runTraining({
    training,
    batch: (step) => teacher?.teach(windows.batch(step)) ?? windows.batch(step),
    steps: options.steps,
    rate: optimizer.rate,
    onStep: (record) => log.add(record),
    saveEvery: options.saveEvery,
    save: async () => {
      await log.flush();
      await training.synchronise();
      await run.save(training, before);
    },
    ...context,
  });
  await log.flush();
  await training.synchronise();
  training.finish();
  const after = await perplexity(weights);
  const zeros = zeroShare(weights, linear);
  const result = {
    output: options.output,
    model: files.location,
    ...run.settings,
    tokensSeen: options.steps * options.batch * options.window,
    finalLoss: log.records.at(-1)!.loss,
    tokensPerSecond: (1000 * options.batch * options.window) / median(log.records.map(({ elapsedMs }) => elapsedMs)),
    sparsity: zeros,
    ...(before !== undefined && { perplexityBefore: before, perplexityAfter: after }),
  };
  // Built where a killed process leaves nothing behind, then put in its place.
  await buildModel(run.modelDirectory, context, model, options, weights, result, log.records);
  await output.place(run.modelDirectory);
  await run.remove();
  context.print(`${inWords(result)}\n`);
  return result;
}

async function methodOf({ method: id, methodOption }: TrainingCommandOptions) {
  if (!Object.hasOwn(trainMethods, id)) {
    throw new UsageError(`there is no method ${id}; there are ${Object.keys(trainMethods).join(", ")}`);
  }
  const { method } = await trainMethods[id]();
  const parsed = method.options.safeParse(methodOption);
  if (!parsed.success) {
    const [first] = parsed.error.issues;
    const field = first.path.length === 0 ? "" : `${first.path.join(".")}: `;
    throw new UsageError(
      `--method-option for ${id}: ${field}${first.message}; rarefy presets --methods lists what there is`,
    );
  }
  return { method, settings: parsed.data };
}

async function buildModel(
  directory: string,
  context: Context,
  { files, parameters, dtypeOf, blocks, mixture }: TrainableModel,
  options: TrainingCommandOptions,
  weights: ReadonlyMap<string, FloatArray>,
  result: Record<string, unknown>,
  records: readonly LogRecord[],
): Promise<void> {
  const config = (await files.open("config.json"))!;
  const configSha256 = await sha256Hex(await config.read(0, config.byteLength));
  await config.close();
  const stored = { f32: "F32", bf16: "BF16" } as const;
  const { dtype } = options;
  await buildModelDirectory(
    directory,
    [files.directory],
    async (builder) => {
      await builder.takeOver(files, (name) => isCompanionFile(name) || name === "config.json");
      const decided = mixture?.tensors ?? new Map<string, Float32Array>();
      await writeWeights(
        builder.sinks,
        [...parameters, ...Array.from(decided, ([name, { length }]) => ({ name, shape: [length] }))],
        new Map<string, FloatArray>([...weights, ...decided]),
        (name) => (decided.has(name) ? "F32" : dtype ? stored[dtype] : dtypeOf(name)),
        context,
      );
      const { output, ...recipe } = result;
      const lines = records.map((record) => JSON.stringify(record)).join("\n");
      const text = (content: string) => new TextEncoder().encode(content);
      await builder.add("training.jsonl", text(`${lines}\n`));
      await builder.add("training.svg", text(lossCurve(records, basename(output as string))));
      await builder.add(
        artifactFileName,
        serializeArtifact({ rarefy: 1, blocks, recipe, source: { location: files.location, configSha256 } }),
      );
    },
    context,
  );
}

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

const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

function inWords(result: Record<string, unknown>): string {
  const number = (name: string) => digits(result[name] as number, 4);
  return facts([
    ["tokens seen", String(result.tokensSeen)],
    ["last loss", number("finalLoss")],
    ["tokens per second", number("tokensPerSecond")],
    ["zeros in linear weights", `${((result.sparsity as number) * 100).toFixed(1)} %`],
    ...(result.perplexityBefore === undefined
      ? []
      : ([["perplexity", `${number("perplexityBefore")} before, ${number("perplexityAfter")} after`]] as const)),
    ["wrote", `${result.output}`],
  ]);
}

import { type ModelSpec, readModelSpec } from "../../arch/index.js";
import type { JobOptions } from "../../core/index.js";
import type { LoraAdapter } from "../../io/index.js";
import { type AdaptedObjective, adaptedObjective, modulesOf } from "../adapters/adaptedObjective.js";
import { adapterMethods, routedAdapterMethods } from "../adapters/index.js";
import { loraHub } from "../adapters/loraHub.js";
import { routedObjective } from "../adapters/routedObjective.js";
import type { EngineDevice } from "../engine/engine.js";
import { decoderObjective } from "../engine/open.js";
import { method as dense } from "../methods/dense.js";
import { initialWeights, type ModelParameter, modelParameters } from "../models/parameters.js";
import type { Batch, Objective } from "../objective.js";
import { cosine } from "../optimizers/schedule.js";
import { runTraining } from "../runTraining.js";
import { searches } from "../search/index.js";
import { randomFor } from "../seeds.js";
import type { State } from "../state.js";
import { Training } from "../training.js";
import type { FloatArray, Values } from "../values.js";
import {
  type AdapterContestant,
  type AdapterProtocol,
  contestants,
  moduleAdapter,
  protocols,
} from "./adapterProtocol.js";
import { type AdapterResult, type ContestantResult, reportAdapters } from "./adapterReport.js";
import {
  batchOf,
  type Example,
  episode,
  episodeWindow,
  exactShare,
  exampleOf,
  heldOutTasks,
  instruction,
  instructionWindow,
  learntTasks,
  vocabSize,
} from "./adapterTasks.js";
import type { Cell, CellOptions, Experiment, Scale } from "./contract.js";

export const experiment: Experiment = {
  id: "adapters",
  title: "Adapters over a family of tasks",
  description:
    "A small character model learns fourteen tasks on short texts (copy, reverse, sort, count …, and some after others) by name: all weights, LoRA, IA³, MoV and MoLoRA, tested on those tasks and, zero-shot, on pairs of operations that nothing has seen. For those LoraHub, too, combines adapters of single tasks by a few examples, beside in-context learning and a LoRA of the examples alone.",
  seeds: { smoke: 1, laptop: 3, gpu: 3 },
  plan: (scale, seeds) =>
    Array.from({ length: seeds }, (_, seed) => ({
      key: `seed${seed}`,
      seed,
      settings: { scale, ...protocols[scale] },
    })),
  run: runCell,
  report: async (cells, scale) => reportAdapters(cells, protocols[scale]),
};

/** The model that all adapters lie beside. */
interface Base {
  spec: ModelSpec;
  parameters: readonly ModelParameter[];
  weights: Map<string, FloatArray>;
  device: EngineDevice;
  protocol: AdapterProtocol;
  seed: number;
}

async function runCell(
  { seed, settings }: Cell,
  { device, signal, onProgress, state }: CellOptions,
): Promise<AdapterResult> {
  const job = { signal, onProgress };
  const protocol = protocols[settings.scale as Scale];
  const spec = specOf(protocol);
  const parameters = modelParameters(spec);
  const base: Base = { spec, parameters, weights: new Map(), device, protocol, seed };
  const stored = await state.load();
  const found = (stored === undefined ? {} : JSON.parse(stored.found as string)) as Partial<AdapterResult> & {
    learnt?: Record<string, ContestantResult>;
  };
  let saves = (stored?.saves as number | undefined) ?? 0;
  const save = (more: State) => state.save(++saves, { saves, found: JSON.stringify(found), ...more });
  if (stored?.base === undefined) await trainBase(base, stored?.training as State | undefined, save, job);
  else for (const { name } of parameters) base.weights.set(name, (stored.base as State)[name] as FloatArray);
  const withBase = () => save({ base: Object.fromEntries(base.weights) });
  await withBase();

  found.learnt ??= {};
  for (const [name, contestant] of Object.entries(contestants)) {
    if (found.learnt[name] !== undefined) continue;
    found.learnt[name] = await learnAll(base, contestant, job);
    await withBase();
  }
  const few = found.few ?? (await fewShots(base, job));
  return { learnt: found.learnt, few, weights: count(parameters) };
}

const specOf = ({ layers, hiddenSize, intermediateSize, heads, shots }: AdapterProtocol): ModelSpec =>
  readModelSpec(
    {
      model_type: "llama",
      vocab_size: vocabSize,
      hidden_size: hiddenSize,
      intermediate_size: intermediateSize,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      num_key_value_heads: heads,
      max_position_embeddings: episodeWindow(shots + 1),
      rms_norm_eps: 1e-5,
      rope_theta: 10_000,
      tie_word_embeddings: false,
    },
    "character model",
  );

const count = (parameters: readonly { shape: readonly number[] }[]): number =>
  parameters.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);

/** Trains to the end, or from a stored state on. @returns the loss of every step of this call */
async function train(
  objective: Objective,
  weights: Map<string, FloatArray>,
  steps: number,
  rate: number,
  batch: (step: number) => Batch,
  { seed, ...job }: JobOptions & { seed: number },
  resumed?: { stored?: State; save(training: State): Promise<void> },
): Promise<number[]> {
  const schedule = cosine({ peak: rate, final: rate / 10, warmup: Math.min(50, steps / 4), steps });
  const training = new Training({
    objective,
    weights,
    optimizer: { rate: schedule, beta2: 0.95, clip: 1 },
    steps,
    seed,
    method: (context) => dense.start(context, {}),
  });
  if (resumed?.stored !== undefined) training.restore(resumed.stored);
  const losses: number[] = [];
  await runTraining({
    training,
    batch,
    steps,
    rate: schedule,
    onStep: ({ loss }) => losses.push(loss),
    save: resumed && (() => resumed.save(training.state)),
    saveEvery: Math.min(500, Math.ceil(steps / 2)),
    ...job,
  });
  return losses;
}

/** The base model continues examples of a task that it is not told the name of. */
async function trainBase(
  base: Base,
  stored: State | undefined,
  save: (state: State) => Promise<void>,
  job: JobOptions,
): Promise<void> {
  const { spec, parameters, weights, device, protocol, seed } = base;
  const window = episodeWindow(protocol.shots + 1);
  for (const [name, values] of initialWeights(parameters, randomFor(seed, "weights"), 0.05)) weights.set(name, values);
  using objective = await decoderObjective(spec, parameters, window, device, { masked: true });
  const batch = (step: number) => {
    const random = randomFor(seed, "episodes", step);
    const texts = Array.from({ length: protocol.episodes }, () => {
      const task = learntTasks[random.integer(learntTasks.length)];
      return episode(
        Array.from({ length: protocol.shots + 1 }, () => exampleOf(task, random)),
        "all",
      );
    });
    return batchOf(texts, window);
  };
  const resumed = { stored, save: (training: State) => save({ training }) };
  await train(objective, weights, protocol.baseSteps, protocol.baseRate, batch, { seed, ...job }, resumed);
}

/** What is trained, as an objective over its numbers alone. */
async function openContestant(
  base: Base,
  { adapter }: AdapterContestant,
): Promise<Objective & Pick<AdaptedObjective, "first">> {
  const { spec, parameters, weights, device, seed } = base;
  const random = randomFor(seed, "adapter");
  const traced = { masked: true } as const;
  if (adapter !== undefined && Object.hasOwn(routedAdapterMethods, adapter.kind)) {
    const { method } = await routedAdapterMethods[adapter.kind]();
    const beside = { spec, parameters, frozen: weights, window: instructionWindow, device, options: traced };
    return routedObjective(
      beside,
      modulesOf(spec, adapter.targets),
      method,
      method.options.parse(adapter.options),
      random,
    );
  }
  const whole = await decoderObjective(spec, parameters, instructionWindow, device, traced);
  if (adapter === undefined) return Object.assign(whole, { first: new Map(weights) });
  const { method } = await adapterMethods[adapter.kind]();
  const modules = modulesOf(spec, adapter.targets);
  return adaptedObjective(whole, weights, modules, method, method.options.parse(adapter.options), random);
}

/** Instructions of one task, or of any. */
const instructions = (tasks: readonly string[], size: number, seed: number, purpose: string) => (step: number) => {
  const random = randomFor(seed, purpose, step);
  const texts = Array.from({ length: size }, () => {
    const task = tasks[random.integer(tasks.length)];
    return instruction(task, exampleOf(task, random));
  });
  return batchOf(texts, instructionWindow);
};

/** Texts that a task is tested with, the same for all. */
function testsOf(task: string, { tests, shots }: AdapterProtocol, seed: number): { few: Example[]; tests: Example[] } {
  const random = randomFor(seed, `test ${task}`);
  const draw = (length: number) => Array.from({ length }, () => exampleOf(task, random));
  return { few: draw(shots), tests: draw(tests) };
}

/** Share of right answers to a task by its name. */
async function accuracy(objective: Objective, values: Values, task: string, { protocol, seed }: Base): Promise<number> {
  const { tests } = testsOf(task, protocol, seed);
  const batch = batchOf(
    tests.map((example) => instruction(task, example)),
    instructionWindow,
  );
  return exactShare(await objective.predict(values, batch), batch, instructionWindow);
}

async function eachAccuracy(objective: Objective, values: Values, tasks: readonly string[], base: Base) {
  const found: Record<string, number> = {};
  for (const task of tasks) found[task] = await accuracy(objective, values, task, base);
  return found;
}

async function learnAll(base: Base, contestant: AdapterContestant, job: JobOptions): Promise<ContestantResult> {
  const { protocol, seed } = base;
  using objective = await openContestant(base, contestant);
  const values = new Map(Array.from(objective.first, ([name, first]) => [name, first.slice()]));
  const batch = instructions(learntTasks, protocol.instructions, seed, "instructions");
  const losses = await train(objective, values, protocol.steps, contestant.rate, batch, { seed, ...job });
  return {
    trained: count(objective.parameters),
    losses,
    learnt: await eachAccuracy(objective, values, learntTasks, base),
    heldOut: await eachAccuracy(objective, values, heldOutTasks, base),
  };
}

/** Held-out tasks with a few examples of each. */
async function fewShots(base: Base, job: JobOptions): Promise<AdapterResult["few"]> {
  const { spec, parameters, weights, device, protocol, seed } = base;
  const { rank, alpha, targets, rate } = moduleAdapter;
  const { method } = await adapterMethods.lora();
  const options = method.options.parse({ rank, alpha });
  const modules = modulesOf(spec, targets);
  using whole = await decoderObjective(spec, parameters, instructionWindow, device, { masked: true });
  // All begin at the same first halves.
  const objective = adaptedObjective(whole, weights, modules, method, options, randomFor(seed, "adapter"));
  const learn = async (steps: number, batch: (step: number) => Batch) => {
    const values = new Map(Array.from(objective.first, ([name, first]) => [name, first.slice()]));
    await train(objective, values, steps, rate, batch, { seed, ...job });
    return values;
  };
  const adapters: LoraAdapter[] = [];
  for (const task of learntTasks) {
    const values = await learn(protocol.moduleSteps, instructions([task], protocol.instructions, seed, task));
    adapters.push(method.adapter(modules, values, options) as LoraAdapter);
  }
  const found: AdapterResult["few"] = { "no example": {}, "in context": {}, "LoRA of the examples": {} };
  for (const task of heldOutTasks) {
    const { few } = testsOf(task, protocol, seed);
    const batch = batchOf(
      few.map((example) => instruction(task, example)),
      instructionWindow,
    );
    const share = (values: Values) => accuracy(objective, values, task, base);
    found["no example"][task] = await share(objective.first);
    found["in context"][task] = await inContext(base, task);
    found["LoRA of the examples"][task] = await share(await learn(protocol.fewSteps, () => batch));
    for (const id of Object.keys(searches)) {
      const { search } = await searches[id]();
      const { adapter } = await loraHub(spec, weights, adapters, (all) => whole.loss(all, batch), {
        search,
        evaluations: protocol.evaluations,
        bound: 1.5,
        penalty: 0.05,
        random: randomFor(seed, `search ${task}`),
        ...job,
      });
      found[`LoraHub, ${search.title}`] ??= {};
      const values = new Map(modules.flatMap((module) => [...method.values(module, adapter)!]));
      found[`LoraHub, ${search.title}`][task] = await share(values);
    }
  }
  return found;
}

/** The base model, which is shown the examples and told no name. */
async function inContext({ spec, parameters, weights, device, protocol, seed }: Base, task: string): Promise<number> {
  const { few, tests } = testsOf(task, protocol, seed);
  const window = episodeWindow(protocol.shots + 1);
  using objective = await decoderObjective(spec, parameters, window, device, { masked: true });
  const batch = batchOf(
    tests.map((example) => episode([...few, example], "last")),
    window,
  );
  return exactShare(await objective.predict(weights, batch), batch, window);
}

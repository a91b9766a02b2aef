import { breathe, type JobOptions, median, Stage, UsageError } from "../core/index.js";
import type { BackendCounters, Chosen, GpuWork, TopK } from "../kernels/index.js";
import { checkSound, explainNonFinite, type GateCounts, type Model, type RunsAs, runsAs } from "../model/index.js";
import { type ExitCounts, Sequence } from "../runtime/index.js";
import { type MeasuredSpeed, measuredSpeed } from "./measuredSpeed.js";
import { checkComparable, thresholdsOf, type Variant } from "./variant.js";

/** What is timed, and how often. */
export interface SpeedOptions extends JobOptions {
  /** Tokens of the timed prefill, from the start of the text. Default 128. */
  prefillTokens?: number;
  /** Positions in the cache when decoding begins; at least `prefillTokens`. Default `prefillTokens`. */
  contextTokens?: number;
  /** Tokens of the timed decode, after the context. Default 32. */
  decodeTokens?: number;
  /** Timed rounds; every round runs every variant once. Default 5. */
  repeats?: number;
  /** Process memory in bytes, sampled after every run; default: what the backends hold. */
  residentBytes?: () => number;
  /** Processor time of the process so far, all threads, in milliseconds; default: not measured. */
  processorMs?: () => number;
}

/** What one variant took, in tokens per second and bytes per token. */
export interface Speed {
  name: string;
  threads: number;
  prefillTokens: number;
  contextTokens: number;
  decodeTokens: number;
  repeats: number;
  prefillTokensPerSecond: MeasuredSpeed;
  decodeTokensPerSecond: MeasuredSpeed;
  runsAs: RunsAs[];
  /** Bytes read per decoded token: weights, and keys and values, as counted by the backend. */
  bytesPerToken: number;
  /** Share of the inputs that decoding skipped, as counted by the backend; 0 for a dense variant. */
  inputsSkipped: number;
  /** With early exit, by decoded token: behind how many layers it left, how many were run, how often the head was asked. */
  meanExitLayer?: number;
  layersPerToken?: number;
  probesPerToken?: number;
  /** Share of the weights behind gates that decoded tokens met; only of a model with gates in front of layers. */
  layerShare?: number;
  /** Processor time of a decoded token, all threads; a thread that waits by asking again and again counts. */
  cpuMsPerToken?: number;
  /** Of a GPU, by decoded token: how long it computes, by its own clock where it keeps one; and calls of its interface. */
  gpuMsPerToken?: number;
  dispatchesPerToken?: number;
  passesPerToken?: number;
  submitsPerToken?: number;
  /** Bytes that keys and values took, as the backend says. */
  cacheBytes: number;
  peakMemoryBytes: number;
}

interface Run extends BackendCounters {
  prefillMs: number;
  decodeMs: number;
  /** Of the timed tokens. */
  cpuMs: number | undefined;
  gpuWork: GpuWork | undefined;
  exits: ExitCounts | undefined;
  gates: GateCounts | undefined;
  cacheBytes: number;
  memoryBytes: number;
}

/**
 * Prefill and decode speed of every variant in one run: one warm-up round, then rounds in which the variants take turns,
 * every other round in reverse, so that a machine that slows down or is shared harms all alike; medians over the rounds.
 *
 * Prefill is dense. Decoding is fed the tokens of the text, one at a time, because activations on real text decide how
 * sparse they are; each step ends with a greedy choice, as in generation. Batch 1.
 * @param tokens at least contextTokens + decodeTokens of real text
 * @throws UsageError when the text or a model's context is too short
 */
export async function measureSpeed(
  variants: readonly Variant[],
  tokens: Uint32Array,
  options: SpeedOptions = {},
): Promise<Speed[]> {
  checkComparable(variants);
  const timing = checkedTiming(tokens, options);
  const runs: Run[][] = variants.map(() => []);
  const { repeats, signal, onProgress } = timing;
  const stage = new Stage("time", (repeats + 1) * variants.length, "runs", onProgress);
  for (let round = 0; round <= repeats; round++) {
    for (const v of orderOf(variants, round)) {
      await breathe(signal);
      const run = await timedRun(variants[v], tokens, timing);
      if (round > 0) runs[v].push(run);
      stage.advance(1, variants[v].name);
    }
  }
  const gpuMs: (number | undefined)[] = [];
  // Timestamps have their price: those tokens are not timed otherwise.
  for (const variant of variants) gpuMs.push(await decodeOnGpu(variant, tokens, timing));
  return variants.map(({ name, model }, v) => summary(name, conditionsOf(model), timing, runs[v], gpuMs[v]));
}

/** A variant that is opened for its turn, and closed after it. */
export interface ClosedVariant {
  name: string;
  open(): Promise<Variant & Disposable>;
}

/**
 * The same for variants that memory does not hold at once: only one is open at any moment, and is warmed up again in every
 * round.
 * @throws UsageError as `measureSpeed`
 */
export async function measureSpeedInTurn(
  variants: readonly ClosedVariant[],
  tokens: Uint32Array,
  options: SpeedOptions = {},
): Promise<Speed[]> {
  const timing = checkedTiming(tokens, options);
  const runs: Run[][] = variants.map(() => []);
  const conditions: Conditions[] = [];
  const gpuMs: (number | undefined)[] = [];
  const { repeats, signal, onProgress } = timing;
  const stage = new Stage("time", repeats * variants.length, "runs", onProgress);
  for (let round = 0; round < repeats; round++) {
    for (const v of orderOf(variants, round)) {
      await breathe(signal);
      using variant = await variants[v].open();
      checkSound(variant.model);
      await timedRun(variant, tokens, timing);
      await breathe(signal);
      runs[v].push(await timedRun(variant, tokens, timing));
      conditions[v] = conditionsOf(variant.model);
      if (round === repeats - 1) gpuMs[v] = await decodeOnGpu(variant, tokens, timing);
      stage.advance(1, variants[v].name);
    }
  }
  return variants.map(({ name }, v) => summary(name, conditions[v], timing, runs[v], gpuMs[v]));
}

type Conditions = Pick<Speed, "threads" | "runsAs">;

const conditionsOf = ({ backend, choices }: Model): Conditions => ({
  threads: backend.info.threads,
  runsAs: runsAs(choices),
});

/** Every other round in reverse. */
function orderOf(variants: readonly unknown[], round: number): number[] {
  const order = Array.from(variants.keys());
  return round % 2 === 1 ? order.reverse() : order;
}

type Timing = SpeedOptions & Required<Omit<SpeedOptions, keyof JobOptions | "residentBytes" | "processorMs">>;

function checkedTiming(tokens: Uint32Array, options: SpeedOptions): Timing {
  const { prefillTokens = 128, decodeTokens = 32, repeats = 5 } = options;
  const contextTokens = options.contextTokens ?? prefillTokens;
  if (!(prefillTokens >= 1 && decodeTokens >= 1 && repeats >= 1 && contextTokens >= prefillTokens)) {
    throw new UsageError(
      `cannot time ${repeats} × prefill of ${prefillTokens} and decode of ${decodeTokens} tokens after ${contextTokens}`,
    );
  }
  const needed = contextTokens + decodeTokens;
  if (tokens.length < needed) throw new UsageError(`a text of ${tokens.length} tokens; timing needs ${needed}`);
  return { ...options, prefillTokens, contextTokens, decodeTokens, repeats };
}

async function timedRun(variant: Variant, tokens: Uint32Array, timing: Timing): Promise<Run> {
  const { backend } = variant.model;
  const { residentBytes, processorMs } = timing;
  using sequence = openSequence(variant, timing);
  const prefillMs = await fill(sequence, tokens, timing);
  backend.takeCounters();
  backend.takeGpuWork?.();
  variant.model.takeGateCounts?.();
  const before = sequence.exitCounts && { ...sequence.exitCounts };
  const cpuStartMs = processorMs?.();
  const decodeStartMs = performance.now();
  await decode(sequence, tokens, timing);
  const decodeMs = performance.now() - decodeStartMs;
  const cpuEndMs = processorMs?.();
  return {
    prefillMs,
    decodeMs,
    cpuMs: cpuStartMs === undefined || cpuEndMs === undefined ? undefined : cpuEndMs - cpuStartMs,
    gpuWork: backend.takeGpuWork?.(),
    exits: before && differenceOf(sequence.exitCounts!, before),
    gates: variant.model.takeGateCounts?.(),
    ...backend.takeCounters(),
    cacheBytes: sequence.byteLength,
    memoryBytes: residentBytes?.() ?? backend.memoryBytes(),
  };
}

/** Milliseconds that a GPU computes for the timed tokens; undefined where there is none, or no clock. */
async function decodeOnGpu(variant: Variant, tokens: Uint32Array, timing: Timing): Promise<number | undefined> {
  const { backend } = variant.model;
  if (backend.timeGpu === undefined) return undefined;
  await breathe(timing.signal);
  using sequence = openSequence(variant, timing);
  await fill(sequence, tokens, timing);
  return backend.timeGpu(() => decode(sequence, tokens, timing));
}

const openSequence = (variant: Variant, { contextTokens, decodeTokens }: Timing) =>
  new Sequence(variant.model, contextTokens + decodeTokens, { ...variant, thresholds: thresholdsOf(variant) });

/** Runs the context. @returns milliseconds of the prefill */
async function fill(sequence: Sequence, tokens: Uint32Array, timing: Timing): Promise<number> {
  const { prefillTokens, contextTokens, decodeTokens } = timing;
  const needed = contextTokens + decodeTokens;
  const startMs = performance.now();
  await predict(sequence, tokens.subarray(0, prefillTokens), needed);
  const prefillMs = performance.now() - startMs;
  if (contextTokens > prefillTokens) await predict(sequence, tokens.subarray(prefillTokens, contextTokens), needed);
  // The last token of the context once more, untimed, so that the decode path is warm when the clock starts.
  if (sequence.canRewind(contextTokens - 1)) {
    sequence.rewind(contextTokens - 1);
    await predict(sequence, tokens.subarray(contextTokens - 1, contextTokens));
  }
  return prefillMs;
}

/** Where generation enqueues a token before it reads the one before, so does this. */
async function decode(sequence: Sequence, tokens: Uint32Array, { contextTokens, decodeTokens }: Timing): Promise<void> {
  const { backend } = sequence.model;
  let chosen: Chosen | undefined;
  try {
    for (let position = contextTokens; position < contextTokens + decodeTokens; position++) {
      const next = tokens.subarray(position, position + 1);
      if (!sequence.worksAhead) {
        await predict(sequence, next);
        continue;
      }
      const before = chosen;
      const logits = await sequence.run(next, { sparseFrom: 0 });
      chosen = backend.choose!(logits);
      backend.release(logits);
      if (before !== undefined) await checkSoundChoice(sequence, await before.read());
    }
    if (chosen !== undefined) await checkSoundChoice(sequence, await chosen.read());
    chosen = undefined;
  } finally {
    chosen?.[Symbol.dispose]();
  }
}

const differenceOf = (counts: ExitCounts, before: ExitCounts): ExitCounts => ({
  tokens: counts.tokens - before.tokens,
  exitLayers: counts.exitLayers - before.exitLayers,
  layersRun: counts.layersRun - before.layersRun,
  probes: counts.probes - before.probes,
});

const byToken = ({ tokens, exitLayers, layersRun, probes }: ExitCounts) => ({
  meanExitLayer: exitLayers / tokens,
  layersPerToken: layersRun / tokens,
  probesPerToken: probes / tokens,
});

const callsByToken = ({ dispatches, passes, submits }: GpuWork, tokens: number) => ({
  dispatchesPerToken: dispatches / tokens,
  passesPerToken: passes / tokens,
  submitsPerToken: submits / tokens,
});

function summary(
  name: string,
  model: Conditions,
  timing: Timing,
  timed: readonly Run[],
  gpuMs: number | undefined,
): Speed {
  const { prefillTokens, contextTokens, decodeTokens, repeats } = timing;
  const { inputs, inputsSkipped, weightBytesRead, kvBytesRead, exits, gates, gpuWork } = timed[0];
  const cpuMs = timed.flatMap((run) => run.cpuMs ?? []);
  return {
    name,
    ...model,
    prefillTokens,
    contextTokens,
    decodeTokens,
    repeats,
    prefillTokensPerSecond: measuredSpeed(timed.map((run) => (prefillTokens * 1000) / run.prefillMs)),
    decodeTokensPerSecond: measuredSpeed(timed.map((run) => (decodeTokens * 1000) / run.decodeMs)),
    bytesPerToken: (weightBytesRead + kvBytesRead) / decodeTokens,
    inputsSkipped: inputs === 0 ? 0 : inputsSkipped / inputs,
    ...(exits && byToken(exits)),
    ...(gates && { layerShare: gates.met / gates.offered }),
    ...(cpuMs.length > 0 && { cpuMsPerToken: median(cpuMs) / decodeTokens }),
    ...(gpuMs !== undefined && { gpuMsPerToken: gpuMs / decodeTokens }),
    ...(gpuWork && callsByToken(gpuWork, decodeTokens)),
    cacheBytes: timed[0].cacheBytes,
    peakMemoryBytes: Math.max(...timed.map((run) => run.memoryBytes)),
  };
}

/** Runs tokens, dense before position `sparseFrom`, and waits for the most likely next one. */
async function predict(sequence: Sequence, tokens: Uint32Array, sparseFrom = 0): Promise<void> {
  const { backend } = sequence.model;
  const logits = await sequence.run(tokens, { sparseFrom });
  try {
    await checkSoundChoice(sequence, await backend.topK(logits, 1));
  } finally {
    backend.release(logits);
  }
}

async function checkSoundChoice({ model, tokens }: Sequence, [{ values }]: readonly TopK[]): Promise<void> {
  if (!Number.isFinite(values[0])) throw await explainNonFinite(model, Uint32Array.from(tokens));
}

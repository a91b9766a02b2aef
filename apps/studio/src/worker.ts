import type { OnProgress } from "rarefy/core";
import { type ActivationSparsity, ModelStore } from "rarefy/io";
import { type BackendCounters, openBackend } from "rarefy/kernels";
import type { Model } from "rarefy/model";
import { calibrateActivationSparsity, type OpenedModel, openModel, toThresholds } from "rarefy/pipeline";
import { type GenerationStep, generate } from "rarefy/runtime";
import { loadTokenizer, type Tokenizer, tokenizeText } from "rarefy/text";
import {
  type CompareRequest,
  type Generated,
  type GeneratedToken,
  type Machine,
  type Side,
  sparsities,
} from "./protocol.js";
import { type CallContext, serve } from "./rpc.js";
import { filesOf } from "./source.js";
import { watched } from "./watch.js";

// Everything that touches a model runs here, so that the page stays responsive.

interface Session {
  opened: OpenedModel;
  tokenizer: Tokenizer;
  /** Where the calibration text lies. */
  base: string;
  /** Thresholds found here, one record for each of `sparsities`. */
  records?: ActivationSparsity[];
}

/** Text that thresholds are found on: enough for a demonstration, and soon read. */
const calibration = { window: 128, calibrationWindows: 4, characters: 6000 };

let openStore: ModelStore | undefined;
let session: Session | undefined;

addEventListener(
  "message",
  ({ ports: [port] }) =>
    serve(port, {
      machine,
      list: async () => (await store()).list(),
      store: async (source, context) => (await store()).add(await filesOf(source, context.signal), job(context)),
      async remove(location) {
        await (await store()).remove(location);
        return undefined;
      },
      async open({ location, device, weights, base }, context) {
        session?.opened[Symbol.dispose]();
        session = undefined;
        const files = await (await store()).files(location);
        // First, so that a tokenizer that cannot be read leaves no model open.
        const tokenizer = await loadTokenizer(files);
        const opened = await openModel(files, { device, weights, ...job(context) });
        session = { opened, tokenizer, base };
        const { model, artifact } = opened;
        return {
          location,
          backend: model.backend.info.description,
          weights: model.weights,
          layers: model.config.layers,
          bytesPerToken: model.weightBytes.perToken,
          ownSparsity: artifact?.activationSparsity?.sparsity,
        };
      },
      compare,
    }),
  { once: true },
);

/** Opened once; tried again after a failure. */
async function store(): Promise<ModelStore> {
  openStore ??= await ModelStore.open();
  return openStore;
}

/** What long calls of the library take. */
function job({ emit, signal }: CallContext): { onProgress: OnProgress; signal: AbortSignal } {
  return { signal, onProgress: (event) => emit({ type: "progress", ...event }) };
}

/** What the browser offers, found by trying. */
async function machine(): Promise<Machine> {
  const gpu = await openBackend("webgpu").then(
    (backend) => {
      const detail = backend.info.description;
      backend[Symbol.dispose]();
      return { usable: true, detail };
    },
    (error: Error) => ({ usable: false, detail: error.message }),
  );
  const { usage, quota } = await navigator.storage.estimate();
  const isolated = globalThis.crossOriginIsolated;
  const threads = isolated ? navigator.hardwareConcurrency : 1;
  return { gpu, isolated, threads, storage: { usedBytes: usage, quotaBytes: quota } };
}

/** Both sides write, taking turns token by token, so that a machine that is busy with other things slows both alike. */
async function compare(request: CompareRequest, context: CallContext): Promise<Record<Side, Generated>> {
  if (session === undefined) throw new Error("no model is open");
  const { opened, tokenizer } = session;
  const { model } = opened;
  const { prompt, maxTokens, temperature } = request;
  const thresholds = toThresholds(await recordFor(session, request.sparsity, context));
  const { signal } = context;
  // Not ahead: a side is timed in its own turns, in which the GPU is to work for it alone.
  const options = { maxTokens, temperature, seed: 1, tokenizer, prefill: opened.prefill, signal, ahead: false };
  const ids = tokenizer.encode(prompt);
  let watchedToken = false;
  const watching = watched(model, (picture) => {
    watchedToken = true;
    context.emit(picture, [picture.kept.buffer as ArrayBuffer]);
  });
  const writers = [
    new Writer("dense", model, generate(model, ids, { ...options, thresholds: "dense" })),
    new Writer("sparse", model, generate(watching, ids, { ...options, thresholds })),
  ];
  try {
    while (writers.some((writer) => !writer.finished)) {
      for (const writer of writers.filter(({ finished }) => !finished)) {
        watchedToken = false;
        const token = await writer.next(() => watchedToken);
        if (token !== undefined) context.emit(token);
      }
      writers.reverse();
    }
    return Object.fromEntries(writers.map((writer) => [writer.side, writer.result()])) as Record<Side, Generated>;
  } finally {
    for (const writer of writers) await writer.end();
  }
}

/** One side of a comparison. */
class Writer {
  finished = false;
  readonly #tokenIds: number[] = [];
  #timedMs = 0;
  #timedTokens = 0;
  readonly #counted: BackendCounters = { weightBytesRead: 0, inputs: 0, inputsSkipped: 0, kvBytesRead: 0 };

  constructor(
    readonly side: Side,
    readonly model: Model,
    readonly steps: AsyncGenerator<GenerationStep, void>,
  ) {}

  /** @param untimed whether something else took time in this step, asked after it */
  async next(untimed: () => boolean): Promise<GeneratedToken | undefined> {
    this.model.backend.takeCounters();
    const beganMs = performance.now();
    const { value: step } = await this.steps.next();
    const elapsedMs = performance.now() - beganMs;
    this.finished = step === undefined || step.finish !== undefined;
    if (step === undefined) return undefined;
    const { id, text } = step;
    this.#tokenIds.push(id);
    // The first token is the prompt's; the second warms caches and compilers.
    if (this.#tokenIds.length > 2 && !untimed()) {
      this.#timedMs += elapsedMs;
      this.#timedTokens++;
    }
    if (this.#tokenIds.length > 1) {
      const counters = this.model.backend.takeCounters();
      for (const name of ["weightBytesRead", "inputs", "inputsSkipped", "kvBytesRead"] as const)
        this.#counted[name] += counters[name];
    }
    return { type: "token", side: this.side, id, text, tokensPerSecond: this.#tokensPerSecond };
  }

  get #tokensPerSecond(): number | undefined {
    return this.#timedTokens === 0 ? undefined : (1000 * this.#timedTokens) / this.#timedMs;
  }

  result(): Generated {
    const { weightBytesRead, inputs, inputsSkipped } = this.#counted;
    const decoded = this.#tokenIds.length - 1;
    return {
      tokenIds: this.#tokenIds,
      tokensPerSecond: this.#tokensPerSecond,
      bytesPerToken: decoded === 0 ? undefined : weightBytesRead / decoded,
      skipped: inputs === 0 ? 0 : inputsSkipped / inputs,
    };
  }

  async end(): Promise<void> {
    await this.steps.return();
  }
}

/** Thresholds of rarefy.json, or found on a text that comes with rarefy. */
async function recordFor(
  current: Session,
  sparsity: CompareRequest["sparsity"],
  context: CallContext,
): Promise<ActivationSparsity> {
  if (sparsity === "own") return current.opened.artifact!.activationSparsity!;
  current.records ??= await calibrated(current, context);
  return current.records[sparsities.indexOf(sparsity)];
}

async function calibrated({ opened, tokenizer, base }: Session, context: CallContext): Promise<ActivationSparsity[]> {
  const { characters, ...windows } = calibration;
  const response = await fetch(new URL("text/calib.txt", base), { signal: context.signal });
  if (!response.ok) throw new Error(`the calibration text could not be loaded (status ${response.status})`);
  const text = await tokenizeText(tokenizer, (await response.text()).slice(0, characters));
  const { records } = await calibrateActivationSparsity(opened.model, text, {
    sparsities,
    ...windows,
    ...job(context),
  });
  return records;
}

import type { Hono } from "hono";
import { type JobOptions, UsageError } from "../core/index.js";
import { checkOptions, type OptionRules, optionRules } from "../core/internal.js";
import type { Warning } from "../io/index.js";
import type { EngineOptions } from "./engine/engine.js";
import { VerifySessions } from "./engine/verifySession.js";
import { type AppOptions, type AppState, createApp } from "./http/app.js";
import { Metrics } from "./metrics.js";
import { ModelPool } from "./models/modelPool.js";
import { namesOf } from "./models/names.js";
import { loadServedModel, type ModelEntry } from "./models/servedModel.js";

/** What a server serves and where its limits are. */
export interface ServerOptions extends Partial<EngineOptions>, Partial<AppOptions> {
  /** In order; the names that requests call them by differ. */
  models: readonly ModelEntry[];
  /** Bytes of all models in memory, keys and values included; those not used for longest make room. Default: no limit. */
  memoryLimit?: number;
  /** What the files of a model say that is not followed. */
  onWarning?: (warning: Warning) => void;
}

/** A server without a socket: mount its `app`, or have it answer requests itself. */
export interface Server extends AsyncDisposable {
  /** Mount it with `app.route("/llm", server.app)`, or serve `server.app.fetch`. */
  readonly app: Hono;
  /** Loads a model, so that the first request need not wait. @throws what opening it throws */
  load(id: string, job?: JobOptions): Promise<void>;
  /**
   * Takes no new texts, ends those that are verified for others, and resolves once those under way have ended, or after
   * `timeoutMs`.
   * @returns whether all ended
   */
  drain(timeoutMs?: number): Promise<boolean>;
}

const { any, integer } = optionRules;
const number = { expected: "a number above 0", valid: (value: unknown) => typeof value === "number" && value > 0 };

const rules: OptionRules<ServerOptions> = {
  models: { expected: "a list of models", valid: (value) => Array.isArray(value) && value.length > 0 },
  memoryLimit: number,
  onWarning: optionRules.function,
  maxSequences: integer(1),
  maxQueue: integer(0),
  kvBytes: number,
  context: integer(1),
  prefillChunk: integer(1),
  sparseAlone: integer(0),
  apiKeys: optionRules.each(optionRules.text, "a list of keys"),
  corsOrigins: optionRules.each(optionRules.text, "a list of origins"),
  hosts: any,
  maxBodyBytes: number,
  requestTimeoutMs: number,
  onError: optionRules.function,
};

/** The limits of an engine where nothing is said. */
export const engineDefaults: EngineOptions = {
  maxSequences: 16,
  maxQueue: 64,
  kvBytes: 2 ** 31,
  context: 4096,
  prefillChunk: 128,
  sparseAlone: 1,
};

/** The limits of HTTP where nothing is said. */
export const appDefaults: AppOptions = {
  apiKeys: [],
  corsOrigins: [],
  hosts: undefined,
  maxBodyBytes: 4 * 2 ** 20,
  requestTimeoutMs: 600_000,
  onError: () => {},
};

/**
 * An OpenAI-compatible server for models of this package. Nothing is loaded before it is asked for, and nothing is printed.
 * @example
 * await using server = createServer({ models: [{ id: "tiny", files: () => resolveModel("tiny-6m") }] });
 * app.route("/llm", server.app);
 * @throws UsageError for options that do not fit
 */
export function createServer(options: ServerOptions): Server {
  checkOptions("createServer", options, rules);
  const ids = namesOf(options.models).map(([name]) => name);
  if (new Set(ids).size < ids.length)
    throw new UsageError(`createServer: two models have the same name: ${ids.join(", ")}`);
  const engine = pick(options, engineDefaults);
  const metrics = new Metrics();
  const pool = new ModelPool(
    options.models,
    options.memoryLimit ?? Number.POSITIVE_INFINITY,
    async (entry, job, room) => {
      const shared = options.memoryLimit === undefined ? undefined : room;
      const model = await loadServedModel(entry, engine, metrics.observerOf(entry.id), job, shared);
      for (const warning of model.warnings) options.onWarning?.(warning);
      return model;
    },
  );
  const sessions = new VerifySessions();
  const state: AppState = { pool, metrics, sessions, draining: false };
  const app = createApp(state, pick(options, appDefaults));

  const idle = async () => {
    for (const { engine: one } of pool.loaded) await one?.idle();
    await sessions.idle();
  };
  const drain = async (timeoutMs = Number.POSITIVE_INFINITY): Promise<boolean> => {
    state.draining = true;
    // Their clients would hold them open until they time out.
    sessions.end();
    if (timeoutMs === Number.POSITIVE_INFINITY) {
      await idle();
      return true;
    }
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<boolean>((resolve) => {
      timer = setTimeout(resolve, timeoutMs, false);
    });
    try {
      return await Promise.race([idle().then(() => true), late]);
    } finally {
      clearTimeout(timer);
    }
  };
  return {
    app,
    async load(id, job) {
      if (!pool.has(id)) throw new UsageError(`there is no model ${id}`);
      (await pool.lease(id, job))[Symbol.dispose]();
    },
    drain,
    async [Symbol.asyncDispose]() {
      state.draining = true;
      sessions.end();
      for (const { engine: one } of pool.loaded) one?.abort();
      await idle();
      pool[Symbol.dispose]();
    },
  };
}

/** The options that `defaults` has, each as given or by default. */
function pick<T extends object>(given: Partial<T>, defaults: T): T {
  const entries = Object.entries(defaults).map(([name, preset]) => [name, given[name as keyof T] ?? preset]);
  return Object.fromEntries(entries) as T;
}

import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { chatCompletions } from "../api/chatCompletions.js";
import { completions } from "../api/completions.js";
import { embeddings } from "../api/embeddings.js";
import { parseJson } from "../api/parse.js";
import { responses } from "../api/responses.js";
import type { Route, RouteContext } from "../api/route.js";
import { verifyBatches } from "../api/verify/batches.js";
import { verifyModel } from "../api/verify/model.js";
import { verifySessions } from "../api/verify/sessions.js";
import type { VerifySessions } from "../engine/verifySession.js";
import type { Metrics } from "../metrics.js";
import type { ModelPool } from "../models/modelPool.js";
import { adaptedName, type NamedModel, namesOf } from "../models/names.js";
import type { ModelEntry } from "../models/servedModel.js";
import { ApiError, toApiError } from "./errors.js";
import { eventResponse } from "./events.js";
import { Scope } from "./scope.js";
import { bearerKeys, jsonOnly, onlyHosts } from "./security.js";

/** What the app needs to know beside its models. */
export interface AppOptions {
  /** Keys that are let in; none lets everybody in. */
  apiKeys: readonly string[];
  /** Origins of pages that may call the server; none by default, "*" for all. */
  corsOrigins: readonly string[];
  /** Names that the server answers to; undefined for any. */
  hosts: readonly string[] | undefined;
  maxBodyBytes: number;
  requestTimeoutMs: number;
  /** An error that is nobody's fault but the server's. */
  onError: (error: unknown) => void;
}

export interface AppState {
  readonly pool: ModelPool;
  readonly metrics: Metrics;
  /** Texts that are verified for others. */
  readonly sessions: VerifySessions;
  /** Whether no new texts are begun. */
  draining: boolean;
}

/** Endpoints that take a body. */
const routes: Readonly<Record<string, Route>> = {
  "/v1/chat/completions": chatCompletions,
  "/v1/completions": completions,
  "/v1/embeddings": embeddings,
  "/v1/responses": responses,
  "/v1/verify/model": verifyModel,
  "/v1/verify/sessions": verifySessions,
  "/v1/verify/batches": verifyBatches,
};

/** Everything of the server that speaks HTTP. Runs wherever hono does. */
export function createApp(state: AppState, options: AppOptions): Hono {
  const { pool, metrics } = state;
  const app = new Hono();
  const names = new Map(namesOf(pool.entries));
  const known = ["/health", "/metrics", "/v1/models", ...Object.keys(routes)];
  const report = (error: unknown): ApiError => {
    const told = toApiError(error);
    if (told.status === 500) options.onError(error);
    return told;
  };
  const errorResponse = (error: unknown): Response => {
    const told = report(error);
    const { retryAfterSeconds, allow } = told.details;
    return Response.json(told.body, {
      status: told.status,
      headers: {
        ...(retryAfterSeconds !== undefined && { "retry-after": String(retryAfterSeconds) }),
        ...(told.status === 401 && { "www-authenticate": "Bearer" }),
        ...(allow !== undefined && { allow }),
      },
    });
  };
  app.onError((error) => errorResponse(error));
  app.notFound((c) => {
    const what = `${c.req.method} ${c.req.path.slice(0, 100)}`;
    return errorResponse(new ApiError(404, `there is no ${what} here`, { type: "not_found_error", code: "not_found" }));
  });
  app.use(async (c, next) => {
    await next();
    // Where the app is mounted in another one, paths begin with a place of its.
    metrics.request(known.find((path) => c.req.path.endsWith(path)) ?? "other", c.res.status);
  });
  if (options.hosts !== undefined) app.use(onlyHosts(options.hosts));
  if (options.corsOrigins.length > 0) {
    const origin = options.corsOrigins.includes("*") ? "*" : [...options.corsOrigins];
    app.use(cors({ origin, allowHeaders: ["authorization", "content-type"], exposeHeaders: ["retry-after"] }));
  }
  app.get("/health", (c) =>
    state.draining
      ? c.json({ status: "draining" }, 503)
      : c.json({ status: "ok", models: [...names.keys()], loaded: pool.loaded.map(({ id }) => id) }),
  );
  app.use("/metrics", bearerKeys(options.apiKeys));
  app.get("/metrics", (c) => c.text(metrics.text(pool), 200, { "content-type": "text/plain; version=0.0.4" }));
  app.use("/v1/*", bearerKeys(options.apiKeys), jsonOnly);
  app.get("/v1/models", (c) => c.json({ object: "list", data: [...names.keys()].map(modelBody) }));
  app.get("/v1/models/:id{.+}", (c) => c.json(modelBody(c.req.param("id"))));
  const maxSize = options.maxBodyBytes;
  const onTooLarge = () => {
    throw new ApiError(413, `the body has more than ${maxSize} bytes`, { code: "body_too_large" });
  };
  for (const [path, route] of Object.entries(routes)) {
    app.post(path, bodyLimit({ maxSize, onError: onTooLarge }), (c) => answer(c, route));
  }
  // RFC 9110, 15.5.6: what is known by another method says by which.
  const others = (path: string, allow: string) =>
    app.all(path, (c) => {
      throw new ApiError(405, `${c.req.path.slice(0, 100)} is not asked by ${c.req.method} but by ${allow}`, {
        ...{ code: "method_not_allowed", allow },
      });
    });
  for (const path of ["/health", "/metrics", "/v1/models", "/v1/models/:id{.+}"]) others(path, "GET, HEAD");
  for (const path of Object.keys(routes)) others(path, "POST");
  async function answer(c: Context, route: Route): Promise<Response> {
    if (state.draining) throw new ApiError(503, "the server closes", { code: "draining", retryAfterSeconds: 5 });
    const body = parseJson(await c.req.text());
    const scope = new Scope(c.req.raw.signal, options.requestTimeoutMs);
    try {
      const answered = await route(contextOf(scope), body);
      if ("events" in answered) {
        return eventResponse(answered.events, scope, (error) => ({ data: report(error).body }));
      }
      scope[Symbol.dispose]();
      return c.json(answered.body);
    } catch (error) {
      scope[Symbol.dispose]();
      throw error;
    }
  }

  const contextOf = (scope: Scope): RouteContext => ({
    scope,
    sessions: state.sessions,
    async model({ model: asked, rarefy }) {
      const name = asked ?? (pool.entries.length === 1 ? pool.entries[0].id : undefined);
      if (name === undefined) {
        throw new ApiError(400, `model: name one of ${[...names.keys()].join(", ")}`, {
          param: "model",
          code: "missing_model",
        });
      }
      const { entry, adapter = rarefy?.adapter ?? undefined } = named(name);
      if (adapter !== undefined) checkAdapter(entry, adapter, rarefy?.adapter ?? adapter);
      const { model } = scope.hold(await pool.lease(entry.id));
      return adapter === undefined ? model : { ...model, id: adaptedName(entry.id, adapter), adapter };
    },
  });
  return app;

  function named(name: string): NamedModel {
    const found = names.get(name);
    if (found !== undefined) return found;
    const message = `there is no model ${JSON.stringify(name.slice(0, 200))}; there are ${[...names.keys()].join(", ")}`;
    throw new ApiError(404, message, { type: "not_found_error", param: "model", code: "model_not_found" });
  }

  function modelBody(name: string) {
    const { entry, adapter } = named(name);
    const parent = adapter === undefined ? {} : { parent: entry.id };
    return { id: name, object: "model", created: 0, owned_by: "rarefy", ...parent };
  }
}

/** @param asked what the field `rarefy.adapter` says, where it says something */
function checkAdapter({ id, adapters = [] }: ModelEntry, adapter: string, asked: string): void {
  const refuse = (problem: string) =>
    new ApiError(400, `rarefy.adapter: ${problem}`, { param: "rarefy.adapter", code: "invalid_value" });
  if (asked !== adapter) throw refuse(`model names the adapter ${adapter}; name one of the two`);
  if (adapters.some(({ name }) => name === adapter)) return;
  const there = adapters.length === 0 ? "none" : adapters.map(({ name }) => name).join(", ");
  throw refuse(`${id} has no adapter ${JSON.stringify(adapter)}; it has ${there}`);
}

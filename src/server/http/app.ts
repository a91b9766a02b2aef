import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { chatCompletions } from "../api/chatCompletions.js";
import { completions } from "../api/completions.js";
import { embeddings } from "../api/embeddings.js";
import { parseJson } from "../api/parse.js";
import { responses } from "../api/responses.js";
import type { Route, RouteContext } from "../api/route.js";
import type { Metrics } from "../metrics.js";
import type { ModelPool } from "../models/modelPool.js";
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
  /** Whether no new texts are begun. */
  draining: boolean;
}

/** Endpoints that take a body. */
const routes: Readonly<Record<string, Route>> = {
  "/v1/chat/completions": chatCompletions,
  "/v1/completions": completions,
  "/v1/embeddings": embeddings,
  "/v1/responses": responses,
};

/** Everything of the server that speaks HTTP. Runs wherever hono does. */
export function createApp(state: AppState, options: AppOptions): Hono {
  const { pool, metrics } = state;
  const app = new Hono();
  const known = ["/health", "/metrics", "/v1/models", ...Object.keys(routes)];
  const report = (error: unknown): ApiError => {
    const told = toApiError(error);
    if (told.status === 500) options.onError(error);
    return told;
  };
  const errorResponse = (error: unknown): Response => {
    const told = report(error);
    const { retryAfterSeconds } = told.details;
    return Response.json(told.body, {
      status: told.status,
      headers: {
        ...(retryAfterSeconds !== undefined && { "retry-after": String(retryAfterSeconds) }),
        ...(told.status === 401 && { "www-authenticate": "Bearer" }),
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
      : c.json({ status: "ok", models: pool.entries.map(({ id }) => id), loaded: pool.loaded.map(({ id }) => id) }),
  );
  app.use("/metrics", bearerKeys(options.apiKeys));
  app.get("/metrics", (c) => c.text(metrics.text(pool), 200, { "content-type": "text/plain; version=0.0.4" }));
  app.use("/v1/*", bearerKeys(options.apiKeys), jsonOnly);
  app.get("/v1/models", (c) => c.json({ object: "list", data: pool.entries.map(modelBody) }));
  app.get("/v1/models/:id{.+}", (c) => {
    const entry = pool.entries.find(({ id }) => id === c.req.param("id"));
    if (entry === undefined) throw noModel(c.req.param("id"));
    return c.json(modelBody(entry));
  });
  const maxSize = options.maxBodyBytes;
  const onTooLarge = () => {
    throw new ApiError(413, `the body has more than ${maxSize} bytes`, { code: "body_too_large" });
  };
  for (const [path, route] of Object.entries(routes)) {
    app.post(path, bodyLimit({ maxSize, onError: onTooLarge }), (c) => answer(c, route));
  }
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
    async model(id) {
      const name = id ?? (pool.entries.length === 1 ? pool.entries[0].id : undefined);
      if (name === undefined) {
        throw new ApiError(400, `model: name one of ${pool.entries.map((entry) => entry.id).join(", ")}`, {
          param: "model",
          code: "missing_model",
        });
      }
      if (!pool.has(name)) throw noModel(name);
      return scope.hold(await pool.lease(name)).model;
    },
  });
  return app;

  function noModel(name: string): ApiError {
    const message = `there is no model ${JSON.stringify(name.slice(0, 200))}; there are ${pool.entries.map(({ id }) => id).join(", ")}`;
    return new ApiError(404, message, { type: "not_found_error", param: "model", code: "model_not_found" });
  }
}

const modelBody = ({ id }: { id: string }) => ({ id, object: "model", created: 0, owned_by: "rarefy" });

import * as z from "zod/mini";
import { UsageError } from "../../../core/index.js";
import { Sampler } from "../../../runtime/index.js";
import type { SessionRequest, VerifySession } from "../../engine/verifySession.js";
import { ApiError } from "../../http/errors.js";
import type { ServerEvent } from "../../http/events.js";
import { generationOf, roomFor, samplingFields } from "../fields.js";
import { checkBody } from "../parse.js";
import { newId, type Route, type RouteContext } from "../route.js";
import { engineOf } from "./engineOf.js";

// Presence and frequency count what was generated: a server that is given tokens does not know which those are.
const { presence_penalty: _, frequency_penalty: __, ...sampling } = samplingFields;

const schema = z.strictObject({
  ...sampling,
  prompt: z.array(z.int().check(z.gte(0))).check(z.minLength(1), z.maxLength(2 ** 20)),
  max_tokens: z.int().check(z.gte(1), z.lte(2 ** 24)),
});

/** Connections that nothing comes over are cut by what lies between. */
const aliveMs = 15_000;

/**
 * POST /v1/verify/sessions: begins a text whose tokens the client proposes. The answer is a stream that says the session and the
 * first token, and stays open as long as the session lasts: when the client goes away, its keys and values are given back.
 */
export const verifySessions: Route = async (context, raw) => {
  const body = checkBody(schema, raw);
  const served = await context.model(body);
  const engine = engineOf(served);
  const prompt = Uint32Array.from(body.prompt);
  const most = roomFor(served, prompt, body.max_tokens, "prompt");
  const { sampling, variant } = generationOf(served, body, 0);
  const session = await open(context, engine, {
    id: newId("verify-"),
    modelId: served.id,
    prompt,
    capacity: prompt.length + most - 1,
    variant,
    sampler: new Sampler(sampling),
  });
  const end = () => session[Symbol.dispose]();
  context.scope.signal.addEventListener("abort", end, { once: true });
  context.scope.hold({ [Symbol.dispose]: end });
  if (context.scope.signal.aborted) end();
  session.signal.throwIfAborted();
  return { events: events(context, session, await session.first()) };
};

async function open(
  { sessions }: RouteContext,
  engine: ReturnType<typeof engineOf>,
  request: SessionRequest,
): Promise<VerifySession> {
  const busy = (message: string) =>
    new ApiError(429, message, { type: "rate_limit_error", code: "queue_full", retryAfterSeconds: 1 });
  const { maxSequences } = engine.options;
  for (;;) {
    if (sessions.count(engine) >= maxSequences) throw busy(`${maxSequences} texts are verified already; try again`);
    try {
      const session = sessions.open(engine, request);
      if (session !== undefined) return session;
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      throw new ApiError(400, `rarefy.kv: ${error.message}`, { param: "rarefy.kv", code: "invalid_value" });
    }
    const { growing } = engine.memory;
    if (growing === undefined) break;
    await growing;
  }
  throw busy("the keys and values of other texts take all room; try again");
}

async function* events({ scope }: RouteContext, session: VerifySession, next: number): AsyncGenerator<ServerEvent> {
  yield { event: "session", data: { session: session.request.id, next } };
  for (;;) {
    await endOr(session.signal, aliveMs);
    // Why it ends: the time is up, the server closes, a pass failed.
    scope.signal.throwIfAborted();
    session.signal.throwIfAborted();
    yield { event: "alive", data: {} };
  }
}

function endOr(signal: AbortSignal, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}

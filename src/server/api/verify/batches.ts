import * as z from "zod/mini";
import { longestDraft, mostOfLaw } from "../../../runtime/internal.js";
import type { VerifySession } from "../../engine/verifySession.js";
import { ApiError } from "../../http/errors.js";
import { checkBody } from "../parse.js";
import type { Route } from "../route.js";

const id = z.int().check(z.gte(0));
const schema = z.strictObject({
  session: z.string().check(z.maxLength(200)),
  given: z.array(id).check(z.minLength(1), z.maxLength(2 ** 20)),
  ids: z.array(id).check(z.maxLength(longestDraft)),
  laws: z.nullish(
    z
      .array(z.array(z.tuple([id, z.number().check(z.gt(0), z.lte(1))])).check(z.minLength(1), z.maxLength(mostOfLaw)))
      .check(z.maxLength(longestDraft)),
  ),
});

/** By how much the sum of a law may miss 1. */
const tolerance = 1e-6;

const refuse = (param: string, problem: string) =>
  new ApiError(400, `${param}: ${problem}`, { param, code: "invalid_value" });

/**
 * POST /v1/verify/batches: runs `given`, tokens that are decided, and verifies `ids`, tokens that are proposed after them and
 * were drawn from `laws`, pairs of id and probability each; without laws they count as certain.
 */
export const verifyBatches: Route = async (context, raw) => {
  const body = checkBody(schema, raw);
  const find = (): VerifySession => {
    const found = context.sessions.find(body.session);
    if (found !== undefined) return found;
    throw new ApiError(404, "session: there is none of that name, or it has ended", {
      type: "not_found_error",
      param: "session",
      code: "session_not_found",
    });
  };
  // The model stays for as long as the pass takes, even where the session ends before.
  const served = await context.model({ model: find().request.modelId });
  const session = find();
  if (session.busy) throw new ApiError(400, "session: another batch of it is under way", { param: "session" });
  const { vocabSize } = served.opened.model.config;
  for (const name of ["given", "ids"] as const) {
    const at = body[name].findIndex((one) => one >= vocabSize);
    if (at >= 0) throw refuse(`${name}[${at}]`, `the vocabulary has ${vocabSize} tokens`);
  }
  const tokens = body.given.length + body.ids.length;
  if (tokens > session.room)
    throw refuse("given", `${tokens} tokens with ids; the session has room for ${session.room}`);
  const laws = body.laws?.map((pairs, i) => lawOf(pairs, body.ids[i], vocabSize, `laws[${i}]`));
  if (laws !== undefined && laws.length !== body.ids.length)
    throw refuse("laws", `${laws.length} of them for ${body.ids.length} ids`);
  const { accepted, next, elapsedMs } = await session.verify(body.given, { ids: body.ids, laws });
  return { body: { accepted, next, elapsed_ms: elapsedMs } };
};

/** @param drawn the token that was drawn from it @returns f64 [vocabSize] */
function lawOf(
  pairs: readonly [number, number][],
  drawn: number | undefined,
  vocabSize: number,
  param: string,
): Float64Array {
  const law = new Float64Array(vocabSize);
  let total = 0;
  for (const [j, [token, share]] of pairs.entries()) {
    if (token >= vocabSize) throw refuse(`${param}[${j}]`, `the vocabulary has ${vocabSize} tokens`);
    if (law[token] > 0) throw refuse(`${param}[${j}]`, `the token ${token} stands there twice`);
    law[token] = share;
    total += share;
  }
  if (Math.abs(total - 1) > tolerance) throw refuse(param, `the probabilities sum to ${total}; expected 1`);
  if (drawn !== undefined && law[drawn] === 0)
    throw refuse(param, `the token ${drawn} that was drawn has no probability`);
  return law;
}

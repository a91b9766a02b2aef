import * as z from "zod/mini";
import { vocabularyOf } from "../../../runtime/internal.js";
import { checkBody } from "../parse.js";
import type { Route } from "../route.js";
import { engineOf } from "./engineOf.js";

const schema = z.strictObject({ model: z.nullish(z.string().check(z.maxLength(512))) });

/** POST /v1/verify/model: what one who wants to propose tokens must know. */
export const verifyModel: Route = async (context, raw) => {
  const served = await context.model(checkBody(schema, raw));
  engineOf(served);
  const { vocabSize, eosTokenIds } = served.opened.model.config;
  return {
    body: {
      model: served.id,
      vocabulary: await vocabularyOf(served.tokenizer),
      vocab_size: vocabSize,
      stop_ids: eosTokenIds,
      context: served.context,
    },
  };
};

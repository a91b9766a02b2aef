import * as z from "zod/mini";
import { isEncoder } from "../../arch/index.js";
import { embedText } from "../../runtime/index.js";
import { ApiError } from "../http/errors.js";
import { textsOrIds } from "./fields.js";
import { checkBody } from "./parse.js";
import type { Route } from "./route.js";

const schema = z.strictObject({
  model: z.nullish(z.string().check(z.maxLength(512))),
  input: textsOrIds(
    1,
    { text: 2 ** 22, ids: 2 ** 16 },
    "expected a text, a list of token ids, or a list of either; none empty",
  ),
  encoding_format: z.nullish(z.enum(["float", "base64"])),
  dimensions: z.nullish(z.int().check(z.gte(1))),
  user: z.nullish(z.string()),
  /** Ours: what a vector is made of. */
  pooling: z.nullish(z.enum(["mean", "first"])),
});

/** POST /v1/embeddings: vectors of length 1, from an encoder. */
export const embeddings: Route = async ({ model: open, scope }, raw) => {
  const body = checkBody(schema, raw);
  const served = await open(body);
  const { model } = served.opened;
  const { spec, hiddenSize, maxPositions } = model.config;
  if (!isEncoder(spec)) {
    throw new ApiError(
      400,
      `${served.id} reads texts token by token and makes no vectors of them; serve an encoder (BERT)`,
      {
        param: "model",
        code: "unsupported_model",
      },
    );
  }
  if (body.dimensions != null && body.dimensions !== hiddenSize) {
    const message = `dimensions: the vectors of ${served.id} have ${hiddenSize}`;
    throw new ApiError(400, message, { param: "dimensions", code: "invalid_value" });
  }
  const { input } = body;
  const one = typeof input === "string" || typeof input[0] === "number";
  const inputs = (one ? [input] : input) as (string | number[])[];
  const tokens = inputs.map((item, i) => {
    const encoded = typeof item === "string" ? served.tokenizer.encode(item) : Uint32Array.from(item);
    const param = one ? "input" : `input[${i}]`;
    if (encoded.length > maxPositions) {
      const message = `${param} has ${encoded.length} tokens; ${served.id} reads ${maxPositions}`;
      throw new ApiError(400, message, { param, code: "context_length_exceeded" });
    }
    return encoded;
  });
  const data: object[] = [];
  for (const [index, encoded] of tokens.entries()) {
    const vector = await embedText(model, encoded, { pooling: body.pooling ?? "mean", signal: scope.signal });
    const embedding =
      body.encoding_format === "base64"
        ? Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString("base64")
        : [...vector];
    data.push({ object: "embedding", index, embedding });
  }
  const count = tokens.reduce((sum, { length }) => sum + length, 0);
  return {
    body: { object: "list", data, model: served.id, usage: { prompt_tokens: count, total_tokens: count } },
  };
};

import * as z from "zod/mini";
import type { GenerationRequest } from "../engine/request.js";
import { ApiError } from "../http/errors.js";
import type { ServedModel } from "../models/servedModel.js";

/** Fields that several requests have. Null counts as left out, as in the API. */

const number = (min: number, max: number) => z.nullish(z.number().check(z.gte(min), z.lte(max)));
const text = z.string().check(z.maxLength(2 ** 20));

/** A text, its token ids, or a list of up to 2048 of either. @param least length of a text @param most lengths @param error what was expected */
export const textsOrIds = (least: number, most: { text: number; ids: number }, error: string) => {
  const text = z.string().check(z.minLength(least), z.maxLength(most.text));
  const ids = z.array(z.int().check(z.gte(0))).check(z.minLength(1), z.maxLength(most.ids));
  const listOf = <T extends z.ZodMiniType>(one: T) => z.array(one).check(z.minLength(1), z.maxLength(2048));
  return z.union([text, ids, listOf(text), listOf(ids)], { error });
};

/** Choices of one request at most. */
const mostChoices = 128;

/** Beside a score, so many tokens may come with theirs. */
export const mostLogprobs = 20;

export const rarefyFields = z.nullish(
  z.strictObject({
    /** Share of inputs that count as zero, 0 or "dense" for none. */
    sparsity: z.nullish(
      z.union([z.number().check(z.gte(0), z.lte(0.95)), z.literal("dense")], {
        error: 'expected 0 to 0.95, or "dense"',
      }),
    ),
    attention: z.nullish(z.string().check(z.maxLength(200))),
    kv: z.nullish(z.string().check(z.maxLength(200))),
    /** Name of one of the model's adapters, as behind the colon of its name. */
    adapter: z.nullish(z.string().check(z.maxLength(200))),
  }),
);

/** Change nothing about the answer of a server that stores nothing and has one kind of service. */
export const ignoredFields = {
  user: z.nullish(z.string()),
  metadata: z.nullish(z.record(z.string(), z.unknown())),
  store: z.nullish(z.boolean()),
  service_tier: z.nullish(z.string()),
  safety_identifier: z.nullish(z.string()),
  prompt_cache_key: z.nullish(z.string()),
  prompt_cache_retention: z.nullish(z.string()),
};

export const stopField = z.nullish(
  z.union([text.check(z.minLength(1)), z.array(text.check(z.minLength(1))).check(z.maxLength(16))], {
    error: "expected a text, or a list of up to 16 texts, none empty",
  }),
);

export const samplingFields = {
  model: z.nullish(z.string().check(z.maxLength(512))),
  temperature: number(0, 2),
  top_p: z.nullish(z.number().check(z.gt(0), z.lte(1))),
  top_k: z.nullish(z.int().check(z.gte(-1))),
  min_p: number(0, 1),
  repetition_penalty: z.nullish(z.number().check(z.gt(0), z.lte(10))),
  presence_penalty: number(-2, 2),
  frequency_penalty: number(-2, 2),
  seed: z.nullish(z.int()),
  rarefy: rarefyFields,
};

export const completionFields = {
  ...samplingFields,
  ...ignoredFields,
  stop: stopField,
  n: z.nullish(z.int().check(z.gte(1), z.lte(mostChoices))),
  logit_bias: z.nullish(
    z.record(z.string().check(z.regex(/^\d{1,9}$/, "expected a token id")), z.number().check(z.gte(-100), z.lte(100))),
  ),
  ignore_eos: z.nullish(z.boolean()),
  stream: z.nullish(z.boolean()),
  stream_options: z.nullish(
    z.strictObject({ include_usage: z.nullish(z.boolean()), include_obfuscation: z.nullish(z.boolean()) }),
  ),
};

type Sampling = z.infer<z.ZodMiniObject<typeof samplingFields>>;
type Completion = Pick<z.infer<z.ZodMiniObject<typeof completionFields>>, "stop" | "logit_bias" | "ignore_eos">;

/** Without what is undefined or null. */
const given = <T extends object>(fields: T) =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value != null)) as {
    [K in keyof T]?: NonNullable<T[K]>;
  };

/** What a request says of one choice, beside its prompt. @param choice its number: each has a seed of its own */
export function generationOf(
  model: ServedModel,
  fields: Sampling & Completion,
  choice: number,
): Omit<GenerationRequest, "prompt" | "maxTokens" | "continuesPrompt" | "promptLogprobs" | "signal"> {
  const { temperature, top_p: topP, top_k, min_p: minP, repetition_penalty: repetitionPenalty, seed, stop } = fields;
  const { sparsity, attention, kv } = fields.rarefy ?? {};
  const { vocabSize, eosTokenIds } = model.opened.model.config;
  const bias = new Map(Object.entries(fields.logit_bias ?? {}).map(([id, by]) => [Number(id), by]));
  for (const id of bias.keys()) {
    if (id >= vocabSize) {
      const param = `logit_bias.${id}`;
      throw new ApiError(400, `${param}: the vocabulary has ${vocabSize} tokens`, { param, code: "invalid_value" });
    }
  }
  const topK = top_k == null ? undefined : Math.max(0, top_k);
  // Any whole number is a seed; those of the sampler begin at 0.
  const seeded = seed == null ? {} : { seed: ((seed % 2 ** 52) + 2 ** 52 + choice) % 2 ** 52 };
  return {
    sampling: {
      temperature: 1,
      ...model.defaults,
      ...given({ temperature, topP, topK, minP, repetitionPenalty }),
      ...seeded,
    },
    stopIds: fields.ignore_eos ? [] : eosTokenIds,
    stopStrings: stop == null ? [] : typeof stop === "string" ? [stop] : stop,
    bias,
    presencePenalty: fields.presence_penalty ?? 0,
    frequencyPenalty: fields.frequency_penalty ?? 0,
    variant: variantOf(model, given({ sparsity, attention, kv, adapter: model.adapter })),
  };
}

function variantOf(model: ServedModel, choice: Parameters<ServedModel["variants"]["of"]>[0]) {
  try {
    return model.variants.of(choice);
  } catch (error) {
    throw new ApiError(400, `rarefy: ${(error as Error).message}`, { param: "rarefy", code: "invalid_value" });
  }
}

/**
 * How many tokens may be generated behind a prompt.
 * @throws ApiError where the prompt leaves no room, or is empty
 */
export function roomFor(
  model: ServedModel,
  prompt: Uint32Array,
  wanted: number | null | undefined,
  param: string,
): number {
  const { context } = model;
  if (prompt.length === 0) throw new ApiError(400, `${param} gives no tokens`, { param, code: "invalid_value" });
  const { vocabSize } = model.opened.model.config;
  const unknown = prompt.find((id) => id >= vocabSize);
  if (unknown !== undefined) {
    throw new ApiError(400, `${param} has the token ${unknown}; the model has ${vocabSize}`, {
      param,
      code: "invalid_value",
    });
  }
  const room = context - prompt.length + (wanted === 0 ? 0 : 1);
  if (room < (wanted === 0 ? 0 : 1)) {
    const message = `${param} has ${prompt.length} tokens; this server takes texts of up to ${context}, answer included`;
    throw new ApiError(400, message, { param, code: "context_length_exceeded" });
  }
  return Math.min(wanted ?? room, room);
}

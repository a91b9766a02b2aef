import { z } from "zod";
import { FormatError, quote } from "../core/index.js";
import type { RopeConfig } from "./modelConfig.js";
import { checkSchema } from "./schema.js";

const defaultTheta = 10_000;
const theta = z.number().min(1).max(1e12);
const factor = z.number().min(1e-3).max(1e6);

const parameters = z.looseObject({
  rope_theta: theta.nullish(),
  rope_type: z.string().nullish(),
  // The oldest spelling of rope_type.
  type: z.string().nullish(),
  partial_rotary_factor: z.number().nullish(),
});

/** Both spellings: `rope_parameters` since transformers 5, `rope_theta` and `rope_scaling` before. */
export const ropeFields = {
  rope_theta: theta.nullish(),
  rope_scaling: parameters.nullish(),
  rope_parameters: parameters.nullish(),
  partial_rotary_factor: z.number().nullish(),
};

const linearFields = z.object({ factor });
const llama3Fields = z
  .object({
    factor,
    low_freq_factor: factor,
    high_freq_factor: factor,
    original_max_position_embeddings: z
      .int()
      .min(1)
      .max(2 ** 30),
  })
  .refine((f) => f.high_freq_factor > f.low_freq_factor, {
    path: ["high_freq_factor"],
    message: "must be greater than low_freq_factor",
  });

/** One reader per kind of rotary embedding. */
const ropeTypes: Readonly<Record<string, (raw: unknown, theta: number, file: string) => RopeConfig>> = {
  default: (_raw, theta) => ({ type: "default", theta }),
  linear: (raw, theta, file) => ({ type: "linear", theta, factor: checkSchema(linearFields, raw, file).factor }),
  llama3: (raw, theta, file) => {
    const f = checkSchema(llama3Fields, raw, file);
    return {
      type: "llama3",
      theta,
      factor: f.factor,
      lowFreqFactor: f.low_freq_factor,
      highFreqFactor: f.high_freq_factor,
      originalMaxPositions: f.original_max_position_embeddings,
    };
  },
};

/** @throws FormatError */
export function parseRope(config: z.infer<z.ZodObject<typeof ropeFields>>, file: string): RopeConfig {
  // transformers takes rope_scaling where both are there: people add it by hand, as model cards for long contexts say.
  const field = Object.keys(config.rope_scaling ?? {}).length > 0 ? "rope_scaling" : "rope_parameters";
  const raw = config[field];
  const other = field === "rope_scaling" ? config.rope_parameters?.rope_theta : undefined;
  if (other != null && (raw?.rope_theta ?? config.rope_theta ?? defaultTheta) !== other) {
    throw new FormatError({
      file,
      field: "rope_scaling.rope_theta",
      problem: `rope_parameters has ${other}, and rope_scaling, which stands in for it, ${raw?.rope_theta ?? "none"}`,
      expected: "one base of the rotary embedding",
      hint: `Move the fields of rope_scaling into rope_parameters, or add "rope_theta" to rope_scaling`,
    });
  }
  const type = raw?.rope_type ?? raw?.type ?? "default";
  if (!Object.hasOwn(ropeTypes, type)) {
    throw new FormatError({
      file,
      field: `${field}.rope_type`,
      problem: `rotary embedding ${quote(type)} is not supported`,
      expected: `one of ${Object.keys(ropeTypes).join(", ")}`,
    });
  }
  if ((raw?.partial_rotary_factor ?? config.partial_rotary_factor ?? 1) !== 1) {
    throw new FormatError({
      file,
      field: "partial_rotary_factor",
      problem: "rotary embedding of a part of each head is not supported",
      expected: "1",
    });
  }
  return ropeTypes[type](raw, raw?.rope_theta ?? config.rope_theta ?? defaultTheta, `${file}: ${field}`);
}

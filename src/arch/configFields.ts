import * as z from "zod/mini";
import { type ActivationFunction, type GateFunction, quote } from "../core/index.js";
import { parseSchema } from "../core/internal.js";
import { misfitOf, type RopeSpec, ropes } from "./ropes/index.js";

/** What fields of config.json may hold. The bounds are several times those of any known model; memory is sized by them. */

export const maxLayers = 4096;

export const size = (max: number) => z.int().check(z.gte(1), z.lte(max));
export const heads = size(4096);
export const width = size(2 ** 20);
export const positions = size(2 ** 30);
/** Left out and null mean the same in these files. */
export const optional = <T>(type: z.core.$ZodType<T>) =>
  z.pipe(
    z.nullish(type),
    z.transform((value) => value ?? undefined),
  );
/** Left out or null it is `fallback`, as in the configuration class of the family in transformers. */
export const orElse = <T>(type: z.core.$ZodType<T>, fallback: T) =>
  z.pipe(
    z.nullish(type),
    z.transform((value) => value ?? fallback),
  );
export const flag = (fallback: boolean) => orElse(z.boolean(), fallback);
export const epsilon = (fallback: number) => orElse(z.number().check(z.gte(0), z.lte(1)), fallback);
export const layerTypes = optional(
  z.array(z.enum(["full_attention", "sliding_attention"])).check(z.maxLength(maxLayers)),
);

const tokenId = z.int().check(z.gte(-(2 ** 31)), z.lte(2 ** 31));
const tokenIds = z.union([
  z.pipe(
    tokenId,
    z.transform((id) => [id]),
  ),
  z.array(tokenId).check(z.maxLength(1024)),
]);

/** Left out, they are the family's; null means none. */
export const tokenFields = { bos_token_id: z.nullish(tokenId), eos_token_id: z.nullish(tokenIds) };

/** The ids that can be fed and produced: old files have −1 where they mean none. */
export function tokens(
  config: z.output<z.ZodMiniObject<typeof tokenFields>> & { vocab_size: number },
  { bos, eos = [] }: { bos?: number; eos?: readonly number[] },
): { bos_token_id?: number; eos_token_id: readonly number[] } {
  const first = config.bos_token_id === undefined ? bos : (config.bos_token_id ?? undefined);
  const last = config.eos_token_id === undefined ? eos : (config.eos_token_id ?? []);
  return {
    bos_token_id: first !== undefined && isToken(first, config.vocab_size) ? first : undefined,
    eos_token_id: last.filter((id) => isToken(id, config.vocab_size)),
  };
}

/** A config with its ids as `tokens` gives them. */
export function withTokens<T extends Parameters<typeof tokens>[0]>(config: T, defaults: Parameters<typeof tokens>[1]) {
  const { bos_token_id: _bos, eos_token_id: _eos, ...rest } = config;
  return { ...rest, ...tokens(config, defaults) };
}

export const isToken = (id: number, vocabSize: number): boolean => id >= 0 && id < vocabSize;

/** What generation_config.json may say. */
export const generationFields = z.object({ eos_token_id: optional(tokenIds) });

const activations: Readonly<Record<string, ActivationFunction>> = {
  silu: "silu",
  swish: "silu",
  relu: "relu",
  relu2: "relu2",
  gelu: "gelu",
  gelu_new: "geluTanh",
  gelu_fast: "geluTanh",
  gelu_pytorch_tanh: "geluTanh",
};

const functionOf = <F>(functions: Readonly<Record<string, F>>, fallback: keyof typeof activations) =>
  z.pipe(
    z.nullish(z.string()),
    z.transform((name, context): F => {
      const found = lookUp(functions, name ?? fallback);
      return found ?? fail(context, [], `activation function ${quote(name!)} is not supported`, listOf(functions));
    }),
  );

/** The name of an activation function. @param fallback where it is left out, as the file would spell it */
export const activation = (fallback: keyof typeof activations) => functionOf(activations, fallback);

/** Likewise of a gated MLP. */
export const gateFunction = (fallback: keyof typeof activations) =>
  functionOf<GateFunction>({ ...activations, drelu: "drelu" }, fallback);

/** Adds a problem to those of a config. @returns what stands for the value that there is not */
export function fail(
  context: z.core.ParsePayload,
  path: (string | number)[],
  problem: string,
  expected: string,
): never {
  context.issues.push({ code: "custom", input: context.value, path, message: `${problem}; expected ${expected}` });
  return z.NEVER;
}

const theta = z.number().check(z.gte(1), z.lte(1e12));
export const ropeParameters = z.looseObject({
  rope_theta: z.nullish(theta),
  rope_type: z.nullish(z.string()),
  // The oldest spelling of rope_type.
  type: z.nullish(z.string()),
  partial_rotary_factor: z.nullish(z.number().check(z.gt(0), z.lte(1))),
});

/** Both spellings: `rope_parameters` since transformers 5, `rope_theta` and `rope_scaling` before. */
export const ropeFields = {
  rope_theta: z.nullish(theta),
  rope_scaling: z.nullish(ropeParameters),
  rope_parameters: z.nullish(ropeParameters),
  partial_rotary_factor: z.nullish(z.number().check(z.gt(0), z.lte(1))),
  original_max_position_embeddings: z.nullish(positions),
};

export type RopeFields = z.output<z.ZodMiniObject<typeof ropeFields>>;

export interface ReadRope {
  rope: RopeSpec;
  /** Share of a head that is rotated. */
  share: number;
}

/**
 * @param config its `max_position_embeddings` is what the family makes of the file's
 * @param defaults where the file gives none
 * @returns undefined where it cannot be read, of which the context has been told
 */
export function readRope(
  config: RopeFields & { max_position_embeddings: number },
  context: z.core.ParsePayload,
  defaults: { theta?: number; share?: number } = {},
): ReadRope | undefined {
  // transformers takes rope_scaling where both are there: people add it by hand, as model cards for long contexts say.
  const field = Object.keys(config.rope_scaling ?? {}).length > 0 ? "rope_scaling" : "rope_parameters";
  const raw = config[field] ?? {};
  const base = raw.rope_theta ?? config.rope_theta ?? defaults.theta ?? 10_000;
  const other = field === "rope_scaling" ? config.rope_parameters?.rope_theta : undefined;
  if (other != null && base !== other) {
    fail(
      context,
      ["rope_scaling", "rope_theta"],
      `rope_parameters has ${other}, and rope_scaling, which stands in for it, ${raw.rope_theta ?? "none"}`,
      `one base of the rotary embedding: move the fields of rope_scaling into rope_parameters, or add "rope_theta" to rope_scaling`,
    );
    return undefined;
  }
  const type = raw.rope_type ?? raw.type ?? "default";
  const kind = lookUp(ropes, type);
  if (kind === undefined) {
    fail(context, [field, "rope_type"], `rotary embedding ${quote(type)} is not supported`, listOf(ropes));
    return undefined;
  }
  const { max_position_embeddings, original_max_position_embeddings } = config;
  const read = parseSchema(kind.schema as z.core.$ZodType<object>, {
    ...raw,
    max_position_embeddings,
    // That of the config wins, as in transformers.
    original_max_position_embeddings:
      original_max_position_embeddings ?? raw.original_max_position_embeddings ?? max_position_embeddings,
  });
  if (!read.success) {
    for (const issue of read.error.issues) {
      context.issues.push({ code: "custom", input: raw, path: [field, ...issue.path], message: issue.message });
    }
    return undefined;
  }
  const share = raw.partial_rotary_factor ?? config.partial_rotary_factor ?? defaults.share ?? 1;
  return { rope: { ...read.data, theta: base } as RopeSpec, share };
}

/** Rotated columns of a head of an even size. */
export function rotatedWidth(read: ReadRope | undefined, headDim: number, context: z.core.ParsePayload): number {
  // What could not be read has been told of.
  if (read === undefined) return headDim;
  const width = Math.trunc(headDim * read.share);
  const misfit = misfitOf(read.rope, width);
  if (width % 2 !== 0 || width === 0) {
    fail(context, ["partial_rotary_factor"], `it rotates ${width} of ${headDim} columns`, "an even number");
  } else if (misfit !== undefined) {
    const problem = `${misfit.entries} entries for heads of which ${width} columns are rotated`;
    fail(context, [misfit.field], problem, `${width / 2}`);
  }
  return width;
}

/** An entry of a table by a name taken from a file. */
export const lookUp = <T>(table: Readonly<Record<string, T>>, name: string): T | undefined =>
  Object.hasOwn(table, name) ? table[name] : undefined;

export const listOf = (table: object): string => `one of ${Object.keys(table).join(", ")}`;

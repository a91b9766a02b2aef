import * as z from "zod/mini";
import { FormatError } from "../core/index.js";
import { checkSchema } from "../core/internal.js";
import {
  type Artifact,
  activationSparsity,
  artifactFields,
  artifactVersion,
  compression,
  cut,
} from "./artifactSchema.js";
import { isJsonObject } from "./json.js";

/** Thresholds by the seven maps of a Llama. */
const layer = z.strictObject({
  projections: z.strictObject({
    q_proj: cut,
    k_proj: cut,
    v_proj: cut,
    o_proj: cut,
    gate_proj: cut,
    up_proj: cut,
    down_proj: cut,
  }),
  gate: z.optional(cut),
});

const { origin: _origin, ...sameFields } = artifactFields;

const schema = z.strictObject({
  ...sameFields,
  rarefy: z.literal(1),
  activationSparsity: z.optional(z.extend(activationSparsity, { layers: z.array(layer).check(z.maxLength(4096)) })),
  /** Of `compression`; without one, the record of a training. */
  recipe: z.optional(z.unknown()),
  compression: z.optional(z.omit(compression, { recipe: true })),
});

/** What version 1 of rarefy.json says, as one of today. @throws FormatError */
export function artifactOfVersion1(raw: unknown, file: string): Artifact {
  const { activationSparsity, recipe, compression, ...same } = checkSchema(schema, raw, file);
  return {
    ...same,
    rarefy: artifactVersion,
    ...(activationSparsity && {
      activationSparsity: {
        ...activationSparsity,
        layers: activationSparsity.layers.map(({ projections, ...rest }) => ({ maps: projections, ...rest })),
      },
    }),
    ...(compression ? { origin: { compression: { recipe, ...compression } } } : trainingOf(recipe, file)),
  };
}

function trainingOf(recipe: unknown, file: string): Pick<Artifact, "origin"> {
  if (recipe === undefined) return {};
  if (!isJsonObject(recipe)) {
    throw new FormatError({
      file,
      field: "recipe",
      problem: "not a JSON object",
      expected: "the record of a training",
    });
  }
  return { origin: { training: recipe } };
}

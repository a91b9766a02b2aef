import type * as z from "zod/mini";
import type { GgufFamily } from "./gguf.js";
import type { BlockShape, ModelSpec } from "./spec.js";

/** All that is known of a family of models. */
export interface Family<C = unknown> {
  /** `model_type` of config.json. */
  modelType: string;
  /** Checks config.json and fills in what its configuration class in transformers would, under the names of the file. */
  config: z.core.$ZodType<C>;
  /** Fields that this family's models in transformers do not look at either, although their names sound like it. */
  ignored?: readonly string[];
  /** @param shapes sizes of the blocks, where they differ from the config's; as many as there are layers */
  spec(config: C, shapes?: readonly BlockShape[]): Omit<ModelSpec, "modelType">;
  /** Left out where there are no GGUF files of this family. */
  gguf?: GgufFamily;
}

/** Forgets the type of the config: nobody else needs it. */
export const family = <C>(family: Family<C>): Family => family as unknown as Family;

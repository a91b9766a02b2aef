import { FormatError } from "../../core/index.js";
import type { TensorInfo } from "../../tensor/index.js";
import { modulePrefix } from "./adapter.js";

/** The adapter's files say it is one that is not read here. */
export const hint =
  "LoRA and IA³ adapters without biases, whole modules or variants like DoRA can be read, and their mixtures MoLoRA and MoV";

/** Experts of a mixture of adapters at most; the papers have up to 60. */
export const mostExperts = 256;

/** Headers of an adapter's tensors by their names. */
export type Tensors = ReadonlyMap<string, TensorInfo>;
/** The numbers of a tensor as f32. @throws FormatError for other types and for what is not finite */
export type ReadTensor = (name: string) => Promise<Float32Array>;

/** The module that a tensor of the adapter is for, and what it is of it. @throws FormatError */
export function partOf(name: string, parts: readonly string[], file: string): { module: string; part: string } {
  const part = parts.find((part) => name.endsWith(part));
  if (part === undefined || !name.startsWith(modulePrefix)) {
    throw new FormatError({
      file,
      field: name,
      problem: "a tensor of another kind",
      expected: `${modulePrefix}MODULE${parts[0]}`,
      hint,
    });
  }
  return { module: name.slice(modulePrefix.length, -part.length), part };
}

/** Names in a config may be one or several. */
export const namesOf = (names: string | readonly string[] | null | undefined): readonly string[] =>
  typeof names === "string" ? [names] : (names ?? []);

/** Whether a module is meant by a name, which may be the end of its own. */
export const endsWithName = (module: string, name: string): boolean => module === name || module.endsWith(`.${name}`);

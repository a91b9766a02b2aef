import { type BlockShape, type ModelSpec, readModelSpec } from "../../arch/index.js";
import { FormatError } from "../../core/index.js";
import { isJsonObject } from "../../io/index.js";

/** What families call the width of the residual stream. */
const widthFields = ["hidden_size", "n_embd", "d_model", "dim"];

/** A model whose residual stream has fewer channels, as data: its weights are still to be cut. */
export interface NarrowModel {
  config: Record<string, unknown>;
  spec: ModelSpec;
}

/**
 * The description of a model with a narrower residual stream. Heads and neurons stay as many and as wide as they are.
 * @param raw config.json of the source @param spec what it describes @param width channels that stay
 * @throws FormatError for a family in which something else than the stream follows from its width
 */
export function narrowModel(
  raw: unknown,
  spec: ModelSpec,
  headDim: number,
  width: number,
  file: string,
  blocks?: readonly BlockShape[],
): NarrowModel {
  const config: Record<string, unknown> = isJsonObject(raw) ? { ...raw } : {};
  const field = widthFields.find((name) => config[name] === spec.hiddenSize);
  const refuse = (problem: string): never => {
    throw new FormatError({
      file,
      problem,
      expected: "a family whose heads and MLPs do not depend on the width of the stream",
      hint: "Prune neurons or heads of this model (`pattern` neurons)",
    });
  };
  if (field === undefined) return refuse("the width of the residual stream is not told");
  config[field] = width;
  // Left out, the size of a head would be taken from the width of the stream.
  if (config.head_dim === undefined || config.head_dim === null) config.head_dim = headDim;
  const narrow = readModelSpec(config, file, undefined, blocks);
  const other = firstOther(spec, narrow, [spec.hiddenSize, width], "");
  if (other !== undefined) refuse(`${other} would change with the width of the residual stream`);
  return { config, spec: narrow };
}

/** Where two descriptions differ in anything else than the width; undefined when they do not. */
function firstOther(a: unknown, b: unknown, widths: readonly [number, number], path: string): string | undefined {
  if (a === b || (a === widths[0] && b === widths[1])) return undefined;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return path.slice(1);
  const [before, after] = [a, b] as Record<string, unknown>[];
  for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const found = firstOther(before[key], after[key], widths, `${path}.${key}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The axes of a tensor that are the residual stream: those that differ between the model and a narrower one. */
export const streamAxes = (shape: readonly number[], narrow: readonly number[]): number[] =>
  shape.flatMap((size, axis) => (size === narrow[axis] ? [] : [axis]));

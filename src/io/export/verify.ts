import { FormatError, type JobOptions, Stage } from "../../core/index.js";
import { elementCount } from "../../tensor/index.js";
import { rowsOfShape } from "../../tensor/internal.js";
import type { Checkpoint } from "../checkpoint.js";
import { type FloatDType, rounded } from "../encoding/index.js";
import { plainWeights, type Weights } from "../weights.js";
import { rowChunks } from "./rowChunks.js";

/** How close an exported tensor must come to the original. */
export interface Fidelity {
  /** Values are these of the original, rounded to the type: exactly. */
  exact?: FloatDType;
  /** What is added to each before it is stored, and taken off again. */
  shift?: number;
  /** Otherwise: the root of the mean square error relative to the mean square, at most; zeros stay zeros. */
  relativeError?: number;
}

export interface Verification {
  tensors: number;
  /** Tensors whose values are all the same as before the export. */
  unchanged: number;
  /** Largest relative error of a tensor: √(Σ(a − b)² / Σa²). */
  largestRelativeError: number;
}

/**
 * Reads an export back and compares every value with the original.
 * @param fidelity what is asked of a tensor
 * @throws FormatError naming the first tensor that is missing, of another shape or too far off
 */
export async function verifyExport(
  originals: readonly Weights[],
  exported: Checkpoint,
  fidelity: (weights: Weights) => Fidelity,
  options: JobOptions = {},
): Promise<Verification> {
  const total = originals.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const stage = new Stage("read back", total, "weights", options.onProgress);
  const found = new Map((await plainWeights(exported)).map((weights) => [weights.name, weights]));
  const result: Verification = { tensors: originals.length, unchanged: 0, largestRelativeError: 0 };
  for (const original of originals) {
    const { name, shape } = original;
    const back = found.get(name);
    if (back === undefined || back.shape.join() !== shape.join()) {
      const problem = back === undefined ? "the tensor is missing" : `shape [${back.shape.join(", ")}]`;
      throw failure(exported, name, problem, `[${shape.join(", ")}]`);
    }
    const error = await compare(original, back, fidelity(original), exported, options.signal);
    if (error === 0) result.unchanged++;
    result.largestRelativeError = Math.max(result.largestRelativeError, error);
    stage.advance(elementCount(shape), name);
  }
  return result;
}

const failure = (exported: Checkpoint, field: string, problem: string, expected: string) =>
  new FormatError({ file: exported.location, field, problem: `read back: ${problem}`, expected });

/** @returns the relative error, 0 when nothing changed */
async function compare(
  original: Weights,
  back: Weights,
  { exact, shift = 0, relativeError = 0 }: Fidelity,
  exported: Checkpoint,
  signal: AbortSignal | undefined,
): Promise<number> {
  let [squares, errors] = [0, 0];
  for await (const { start, count, values } of rowChunks(original, signal)) {
    const read = await back.readRows(start, count);
    for (let i = 0; i < values.length; i++) {
      const wanted =
        exact === undefined ? values[i] : Math.fround(rounded[exact](Math.fround(values[i] + shift)) - shift);
      const wrong =
        exact === undefined ? values[i] === 0 && read[i] !== 0 : read[i] !== wanted || !Number.isFinite(read[i]);
      if (wrong) {
        const place = start * rowsOfShape(original.shape).cols + i;
        throw failure(exported, original.name, `value ${place} is ${read[i]}`, `${wanted}`);
      }
      squares += values[i] ** 2;
      errors += (values[i] - read[i]) ** 2;
    }
  }
  const error = Math.sqrt(errors / Math.max(squares, Number.MIN_VALUE));
  if (exact === undefined && !(error <= relativeError)) {
    throw failure(exported, original.name, `relative error ${error}`, `at most ${relativeError}`);
  }
  return error;
}

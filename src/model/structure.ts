import type { ProductCosts } from "../kernels/index.js";
import { type PackedFormatId, sparseFormats, type WeightFormatId } from "../pack/index.js";
import type { SparsityProfile } from "./sparsityProfile.js";

/**
 * How matrices are laid out: the fastest here, all weights, one way of leaving zeros out where it can hold the matrix, or
 * LLM.int8(), which rounds weights and inputs in its own way whatever the value type.
 */
export const structures = ["auto", "dense", "bitmask", "2:4", "block", "csr", "tiled-csl", "int8-mixed"] as const;
export type Structure = (typeof structures)[number];

/** What was chosen for one matrix, or a stack that shares its input. */
export interface MatrixChoice {
  /** Names of the parts in the checkpoint. */
  names: readonly string[];
  format: PackedFormatId;
  /** Share of weights that are not 0; 1 where they were not counted to the end. */
  density: number;
  /** Predicted milliseconds of a matrix-vector product, chosen and dense; undefined where nothing was predicted. */
  predictedMs?: number;
  denseMs?: number;
  reason: string;
}

/** A sparse layout must be at least this much faster than dense to be chosen. */
const worthwhile = 0.97;

/**
 * The format of a stack of matrices. With "auto" the predicted times decide; with a structure by name its format is taken
 * where the pattern allows.
 * @param available formats that the backend has kernels for
 * @param costs asked for by "auto" only
 */
export async function chooseFormat(
  names: readonly string[],
  profile: SparsityProfile,
  value: WeightFormatId,
  structure: Structure,
  available: readonly PackedFormatId[],
  costs: (() => Promise<ProductCosts>) | undefined,
): Promise<MatrixChoice> {
  const { rows, cols, density, blockDensity, twoOfFour } = profile;
  const choice = (format: PackedFormatId, reason: string, predictedMs?: number, denseMs?: number): MatrixChoice => ({
    names,
    format,
    density,
    ...(predictedMs !== undefined && { predictedMs, denseMs }),
    reason,
  });
  if (structure === "dense") return choice(value, "dense was asked for");
  const possible = available.filter(
    (format) =>
      Object.hasOwn(sparseFormats, format) && format.endsWith(`-${value}`) && (twoOfFour || !format.startsWith("2:4")),
  );
  if (structure === "int8-mixed" && available.includes(structure))
    return choice(structure, `${structure} was asked for`);
  if (density > 0.9) return choice(value, "dense: hardly any weight is 0");
  if (structure !== "auto") {
    const wanted = possible.find((format) => format === `${structure}-${value}`);
    if (wanted !== undefined) return choice(wanted, `${structure} was asked for`);
    return choice(value, `dense: ${structure} cannot hold this matrix in ${value} here`);
  }
  if (possible.length === 0 || costs === undefined) {
    return choice(value, `dense: the backend has no sparse kernels for ${value}`);
  }
  const { predictMs } = await costs();
  const denseMs = predictMs(value, rows, cols, density);
  const ranked = possible
    .map((format) => {
      const held = format.startsWith("block") ? blockDensity : density;
      return { format, ms: predictMs(format, rows, cols, held) };
    })
    .sort((a, b) => a.ms - b.ms);
  const [best] = ranked;
  const times = `${best.ms.toFixed(3)} ms predicted, dense ${denseMs.toFixed(3)} ms`;
  if (best.ms < worthwhile * denseMs) return choice(best.format, `fastest: ${times}`, best.ms, denseMs);
  return choice(value, `dense: ${best.format} is no faster, ${times}`, denseMs, denseMs);
}

/** One line for people: which formats hold how many matrices, and why dense ones stayed dense. */
export function describeChoices(choices: readonly MatrixChoice[]): string {
  const counts = new Map<string, number>();
  for (const { format, reason } of choices) {
    const kind = Object.hasOwn(sparseFormats, format)
      ? format
      : `${format} (${reason.replace(/,? ?[\d.]+ ms.*$/, "")})`;
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  return Array.from(counts, ([kind, count]) => `${count} × ${kind}`).join(", ");
}

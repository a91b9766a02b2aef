import type { ProductCosts } from "../kernels/index.js";
import { isSparse, type PackedFormatId, sparseFormats, structureIds, type WeightFormatId } from "../pack/index.js";
import type { SparsityProfile } from "./sparsityProfile.js";

/**
 * How matrices are laid out: the fastest here, all weights, one way of leaving zeros out where it can hold the matrix, or
 * LLM.int8(), which rounds weights and inputs in its own way whatever the value type.
 */
export const structures = ["auto", "dense", ...structureIds] as const;
/** One of `structures`. */
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

/** A sparse layout must be at least this much faster than dense to be chosen, over as many tokens of prompts as are generated. */
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
  const { rows, cols, density } = profile;
  const choice = (format: PackedFormatId, reason: string, predictedMs?: number, denseMs?: number): MatrixChoice => ({
    names,
    format,
    density,
    ...(predictedMs !== undefined && { predictedMs, denseMs }),
    reason,
  });
  if (structure === "dense") return choice(value, "dense was asked for");
  const sparse = available.filter(isSparse).map((format) => sparseFormats[format]);
  const possible = sparse.filter((format) => format.value === value && format.pattern?.holds(profile));
  // What leaves nothing out holds any matrix.
  const whole = sparse.find((format) => format.structure === structure && format.pattern === undefined);
  if (whole !== undefined) return choice(whole.id, `${structure} was asked for`);
  if (density > 0.9) return choice(value, "dense: hardly any weight is 0");
  if (structure !== "auto") {
    const wanted = possible.find((format) => format.structure === structure);
    if (wanted !== undefined) return choice(wanted.id, `${structure} was asked for`);
    return choice(value, `dense: ${structure} cannot hold this matrix in ${value} here`);
  }
  if (possible.length === 0 || costs === undefined) {
    return choice(value, `dense: the backend has no sparse kernels for ${value}`);
  }
  const { predictMs, predictPromptMs } = await costs();
  const predict = (format: PackedFormatId, share: number) => {
    const ms = predictMs(format, rows, cols, share);
    const promptMs = predictPromptMs?.(format, rows, cols, share) ?? 0;
    return { format, ms, promptMs, bothMs: ms + promptMs };
  };
  const dense = predict(value, density);
  const ranked = possible
    .map(({ id, pattern }) => predict(id, pattern!.shareOf(profile)))
    .sort((a, b) => a.bothMs - b.bothMs);
  const [best] = ranked;
  const compared = (ms: "ms" | "promptMs", what: string) =>
    `${best[ms].toFixed(3)} ms ${what}, dense ${dense[ms].toFixed(3)} ms`;
  const prompt = predictPromptMs === undefined ? "" : `; ${compared("promptMs", "for a token of a prompt")}`;
  const times = `${compared("ms", "predicted")}${prompt}`;
  if (best.bothMs < worthwhile * dense.bothMs) return choice(best.format, `fastest: ${times}`, best.ms, dense.ms);
  return choice(value, `dense: ${best.format} is no faster, ${times}`, dense.ms, dense.ms);
}

/** A reason as it is the same for matrices of any size. */
const withoutTimes = (reason: string): string => reason.replace(/[,:]? ?[\d.]+ ms.*$/, "");

/** What some of a model's matrices run as. */
export interface RunsAs {
  /** "dense", or the way of leaving zeros out. */
  structure: string;
  /** Matrices, or stacks that share an input; and their share of all. */
  matrices: number;
  share: number;
  /** Share of their weights that are 0, where the zeros were counted to the end. */
  zeros: number;
  /** Why, without the times; each once. */
  reasons: string[];
}

/** What a model runs as on this machine, most matrices first. */
export function runsAs(choices: readonly MatrixChoice[]): RunsAs[] {
  const found = new Map<string, MatrixChoice[]>();
  for (const choice of choices) {
    const { format } = choice;
    const structure = isSparse(format) ? sparseFormats[format].structure : "dense";
    found.set(structure, [...(found.get(structure) ?? []), choice]);
  }
  return Array.from(found, ([structure, of]) => ({
    structure,
    matrices: of.length,
    share: of.length / choices.length,
    zeros: 1 - of.reduce((sum, { density }) => sum + density, 0) / of.length,
    reasons: [...new Set(of.map(({ reason }) => withoutTimes(reason)))],
  })).sort((a, b) => b.matrices - a.matrices);
}

/** One line for people: which formats hold how many matrices, and why dense ones stayed dense. */
export function describeChoices(choices: readonly MatrixChoice[]): string {
  const counts = new Map<string, number>();
  for (const { format, reason } of choices) {
    const kind = Object.hasOwn(sparseFormats, format) ? format : `${format} (${withoutTimes(reason)})`;
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  return Array.from(counts, ([kind, count]) => `${count} × ${kind}`).join(", ");
}

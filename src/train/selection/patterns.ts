import * as z from "zod/mini";
import { type Pattern, parsePattern, patternName } from "../../compress/index.js";
import { patternSchema, shapeProblems } from "../../compress/internal.js";
import { UsageError } from "../../core/index.js";
import { isSparsifiable, type ParameterInfo, type Values } from "../values.js";
import { joinUnits, type Member, selectUnits, type Units } from "./groups.js";
import type { MutableMasks } from "./masks.js";

/** The option of methods whose zeros are a pattern from the start: which zeros, and how many. */
export const patternOption = z
  ._default(patternSchema, { type: "nm", keep: 2, group: 4 })
  .check(z.describe('which zeros: "2:4" or another keep:group, a share of zeros (0.5), or a pattern object'));

const structures = "unstructured, block:ROWSxCOLS (block:4x4), rows, columns, neurons, heads, or keep:group (2:4)";

/** The option of methods that have a schedule of their own for how many zeros there are: what becomes zero together. */
export const structureOption = z
  .pipe(
    z._default(z.string(), "unstructured"),
    z.transform((text, context): Pattern => {
      try {
        return parsePattern(text, 0);
      } catch {
        context.issues.push({ code: "custom", input: text, message: `expected ${structures}` });
        return z.NEVER;
      }
    }),
  )
  .check(z.describe(`what becomes zero together: ${structures}`));

/** The structures whose units lie in several matrices. */
export const isCoupled = ({ type }: Pattern): boolean => type === "neurons" || type === "heads";

/**
 * The units of the parameters that may be made sparse: one set for each matrix, for each layer of neurons or heads, or one
 * over all with the scope "global".
 * @throws UsageError naming the matrices that the pattern does not divide
 */
export function unitsOf(parameters: readonly ParameterInfo[], pattern: Pattern): Units[] {
  const sets =
    pattern.type === "neurons" || pattern.type === "heads"
      ? coupledSets(parameters, pattern.type)
      : matrixUnits(parameters.filter(isSparsifiable), pattern);
  return "scope" in pattern && pattern.scope === "global" ? [joinUnits(sets)] : sets;
}

const shownProblems = 3;

function matrixUnits(matrices: readonly ParameterInfo[], pattern: Pattern): Units[] {
  const problems = matrices.flatMap(({ name, shape: [rows, cols] }) =>
    shapeProblems(rows, cols, pattern).map((problem) => `${name}: ${problem}`),
  );
  if (problems.length > 0) {
    const more = problems.length > shownProblems ? `; and ${problems.length - shownProblems} more` : "";
    throw new UsageError(problems.slice(0, shownProblems).join("; ") + more);
  }
  return matrices.map(({ name, shape: [rows, cols] }) => {
    const matrix = { name, rows, cols, offset: 0 };
    if (pattern.type === "nm" && pattern.along === "column") {
      // Numbered down the columns, so that a group is a run of units.
      const member: Member = { ...matrix, rowSpan: 1, rowStride: 1, colSpan: 1, colStride: rows };
      return { count: rows * cols, pool: pattern.group, members: [member] };
    }
    const [rowSpan, colSpan] = blockOf(pattern, rows, cols);
    const across = cols / colSpan;
    const count = (rows / rowSpan) * across;
    const byRow = "scope" in pattern && pattern.scope === "row";
    return {
      count,
      pool: pattern.type === "nm" ? pattern.group : byRow ? across : count,
      members: [{ ...matrix, rowSpan, rowStride: across, colSpan, colStride: 1 }],
    };
  });
}

function blockOf(pattern: Pattern, rows: number, cols: number): [rows: number, cols: number] {
  if (pattern.type === "block") return [pattern.rows, pattern.cols];
  if (pattern.type === "rows") return [1, cols];
  if (pattern.type === "columns") return [rows, 1];
  return [1, 1];
}

function coupledSets(parameters: readonly ParameterInfo[], type: "neurons" | "heads"): Units[] {
  const sets = coupledUnits(parameters, type).map(({ units }) => units);
  if (sets.length === 0) throw new UsageError(`this model has no ${type} that could be dropped as a whole`);
  return sets;
}

/** The units of a kind that lie in several matrices, one set for each group that `SharedUnits` names; biases are not among them. */
export function coupledUnits(
  parameters: readonly ParameterInfo[],
  type: "neurons" | "heads",
): { name: string; units: Units }[] {
  const sets = new Map<string, { count: number; members: Member[] }>();
  for (const info of parameters.filter(({ shape }) => shape.length === 2)) {
    for (const { type: own, group, axis, count } of info.shared ?? []) {
      if (own !== type) continue;
      const [rows, cols] = info.shape;
      const size = (axis === "rows" ? rows : cols) / count;
      const spans =
        axis === "rows"
          ? { rowSpan: size, rowStride: 1, colSpan: cols, colStride: 0 }
          : { rowSpan: rows, rowStride: 0, colSpan: size, colStride: 1 };
      const set = sets.get(group) ?? { count, members: [] };
      sets.set(group, set);
      set.members.push({ name: info.name, rows, cols, offset: 0, ...spans });
    }
  }
  return Array.from(sets, ([name, { count, members }]) => ({ name, units: { count, pool: count, members } }));
}

/** How many units of a pool the pattern keeps. The millionth forgives decimal shares that binary cannot hold. */
export const keptOfPool = (pattern: Pattern, pool: number): number =>
  pattern.type === "nm" ? pattern.keep : pool - Math.floor(pool * pattern.sparsity + 1e-6);

/**
 * Chooses the masks of a pattern by magnitude: the largest units of every pool stay.
 * @returns fills the masks from weights; entries of matrices without units stay 1
 * @throws UsageError when the pattern does not fit the shapes
 */
export function magnitudeMasks(parameters: readonly ParameterInfo[], pattern: Pattern) {
  const sets = unitsOf(parameters, pattern);
  return (weights: Values, masks: MutableMasks): void => {
    for (const mask of masks.values()) mask.fill(1);
    for (const units of sets) selectUnits(units, weights, keptOfPool(pattern, units.pool), masks);
  };
}

/** How many of every four along a row the pattern keeps; undefined for any other pattern. */
export const keptOfFour = (pattern: Pattern): number | undefined =>
  pattern.type === "nm" && pattern.group === 4 && pattern.along !== "column" ? pattern.keep : undefined;

/**
 * The share of units that a method with an option for it keeps: of N:M it is given by the pattern.
 * @throws UsageError when both say something else
 */
export function densityFor(pattern: Pattern, wanted: number | undefined, otherwise: number): number {
  if (pattern.type !== "nm") return wanted ?? otherwise;
  const given = pattern.keep / pattern.group;
  if (wanted !== undefined && Math.abs(wanted - given) > 1e-6) {
    throw new UsageError(`${patternName(pattern)} keeps a share of ${given}, not ${wanted}; leave the share out`);
  }
  return given;
}

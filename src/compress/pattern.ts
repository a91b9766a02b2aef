import * as z from "zod/mini";
import { UsageError } from "../core/index.js";
import { parseSchema } from "../core/internal.js";

/**
 * Which zeros a pruned matrix W [rows = out, cols = in] may have. `sparsity` is the share of zeros; the exact count is
 * ⌊n · sparsity⌋ of the n things compared with each other.
 */
export type Pattern =
  /** Any entry. */
  | { type: "unstructured"; sparsity: number; scope?: Scope }
  /** `keep` of every `group` consecutive entries: of a row (default; 2:4 tensor cores), or of a column. */
  | { type: "nm"; keep: number; group: number; along?: "row" | "column" }
  /** Whole blocks of `rows` × `cols` entries; scope "row" compares the blocks of one row of blocks. */
  | { type: "block"; rows: number; cols: number; sparsity: number; scope?: "tensor" | "row" }
  /** Whole output rows, or whole input columns. */
  | { type: "rows"; sparsity: number }
  | { type: "columns"; sparsity: number }
  /** Matching slices of all matrices of a block: see structured.ts. Scope "global" compares across blocks. */
  | { type: "neurons"; sparsity: number; scope?: "tensor" | "global" }
  | { type: "heads"; sparsity: number; scope?: "tensor" | "global" };

/** "unstructured", "nm", "block" and the other kinds of pattern. */
export type PatternType = Pattern["type"];

/** Entries that compete for the same budget: one matrix, one of its rows, or all targeted matrices together. */
export type Scope = "tensor" | "row" | "global";

const sparsity = z.number().check(z.gte(0), z.lt(1));
const size = z.int().check(z.gte(1), z.lte(65_536));

const notAPattern = "no pattern; give a share of zeros (0.5), keep:group (2:4) or an object with a type";

const patternObject = z.discriminatedUnion(
  "type",
  [
    z.strictObject({
      type: z.literal("unstructured"),
      sparsity,
      scope: z.optional(z.enum(["tensor", "row", "global"])),
    }),
    z
      .strictObject({
        type: z.literal("nm"),
        keep: size,
        group: size.check(z.lte(64)),
        along: z.optional(z.enum(["row", "column"])),
      })
      .check(z.refine((p) => p.keep < p.group, "keep must be less than group")),
    z.strictObject({
      type: z.literal("block"),
      rows: size,
      cols: size,
      sparsity,
      scope: z.optional(z.enum(["tensor", "row"])),
    }),
    z.strictObject({ type: z.literal("rows"), sparsity }),
    z.strictObject({ type: z.literal("columns"), sparsity }),
    z.strictObject({ type: z.literal("neurons"), sparsity, scope: z.optional(z.enum(["tensor", "global"])) }),
    z.strictObject({ type: z.literal("heads"), sparsity, scope: z.optional(z.enum(["tensor", "global"])) }),
  ],
  { error: ({ code }) => ((code as string) === "invalid_type" ? notAPattern : undefined) },
);

/** A pattern as recipes write it: an object, a sparsity (0.5 is unstructured), or "keep:group". */
export const patternSchema: z.ZodMiniType<Pattern> = z.pipe(
  z.transform((value: unknown) => {
    if (typeof value === "number") return { type: "unstructured", sparsity: value };
    const match = typeof value === "string" ? /^(\d{1,3}):(\d{1,3})$/.exec(value) : null;
    return match === null ? value : { type: "nm", keep: Number(match[1]), group: Number(match[2]) };
  }),
  patternObject,
);

/**
 * A pattern from command-line words.
 * @param text "unstructured", "2:4", "block:16x16", "rows", "columns", "neurons" or "heads"
 * @param share sparsity; needed by all but keep:group
 * @throws UsageError
 */
export function parsePattern(text: string, share?: number): Pattern {
  const block = /^block:(\d{1,5})x(\d{1,5})$/.exec(text);
  const wanted: unknown =
    text.includes(":") && block === null
      ? text
      : block
        ? { type: "block", rows: Number(block[1]), cols: Number(block[2]), sparsity: share }
        : { type: text, sparsity: share };
  const parsed = parseSchema(patternSchema, wanted);
  if (parsed.success) return parsed.data;
  const with_ = share === undefined ? "no sparsity" : `sparsity ${share}`;
  throw new UsageError(
    `"${text}" with ${with_} is no pattern; expected keep:group (2:4), or unstructured, block:ROWSxCOLS, rows, columns, neurons, heads with a sparsity in [0, 1)`,
  );
}

/** The share of zeros a pattern asks for. */
export function sparsityOf(pattern: Pattern): number {
  return pattern.type === "nm" ? 1 - pattern.keep / pattern.group : pattern.sparsity;
}

/** Short name for reports: "50%", "2:4", "block 16×16 50%". */
export function patternName(pattern: Pattern): string {
  if (pattern.type === "nm") return `${pattern.keep}:${pattern.group}${pattern.along === "column" ? " by column" : ""}`;
  const share = `${Number((pattern.sparsity * 100).toFixed(3))}%`;
  if (pattern.type === "unstructured") return share;
  if (pattern.type === "block") return `block ${pattern.rows}×${pattern.cols} ${share}`;
  return `${pattern.type} ${share}`;
}

/** ⌊n · sparsity⌋; the millionth forgives decimal shares that binary cannot hold (0.29 · 100). */
export function zerosFor(n: number, share: number): number {
  return Math.floor(n * share + 1e-6);
}

/** Why a matrix of this shape cannot take this pattern; empty when it can. */
export function shapeProblems(rows: number, cols: number, pattern: Pattern): string[] {
  const problems: string[] = [];
  const divides = (what: string, length: number, by: number) => {
    if (length % by !== 0) problems.push(`${length} ${what} are not a multiple of ${by} (${patternName(pattern)})`);
  };
  if (pattern.type === "nm") {
    if (pattern.along === "column") divides("rows", rows, pattern.group);
    else divides("columns", cols, pattern.group);
  }
  if (pattern.type === "block") {
    divides("rows", rows, pattern.rows);
    divides("columns", cols, pattern.cols);
  }
  return problems;
}

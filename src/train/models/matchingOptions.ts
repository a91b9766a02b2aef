import * as z from "zod/mini";
import { type BlockSpec, findStep, type ModelSpec } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import { randomFor } from "../seeds.js";
import type { FloatArray, ParameterInfo } from "../values.js";

const weight = z.number().check(z.gte(0), z.lte(1e6));
const block = z.int().check(z.gte(0), z.lte(100_000));

/** What of a teacher's inside a student is brought to, beside what it predicts. */
export const matchingSchema = z.strictObject({
  /** Weight of the residual stream behind matched blocks: mean squared difference, through a learnt matrix where widths differ. */
  hidden: z._default(weight, 1),
  /** Weight of the relations between tokens in attention: KL over queries, keys and values (MiniLMv2). */
  relations: z._default(weight, 0),
  /** Heads that queries, keys and values are cut into for their relations. Default: the query heads of the student's block. */
  relationHeads: z.optional(z.int().check(z.gte(1), z.lte(65_536))),
  /** Divide the squared difference by the mean square of what the teacher has, so that a weight means the same at every depth. */
  relative: z._default(z.boolean(), true),
  /** Which block of the student follows which of the teacher, from 0. Default: all of the student's, spread evenly. */
  layers: z.optional(
    z
      .array(z.tuple([block, block]))
      .check(z.minLength(1, "names no blocks"), z.maxLength(10_000, "names more blocks than a model has")),
  ),
});

/** `matchingSchema` with its defaults. */
export type MatchingOptions = z.output<typeof matchingSchema>;

/** A block of the student and the one of the teacher that it follows, from 0. */
export type MatchedBlocks = readonly [student: number, teacher: number];

/** Options as they are for two models. */
export interface Matching extends Omit<MatchingOptions, "layers" | "relationHeads"> {
  relationHeads: number;
  layers: readonly MatchedBlocks[];
  /** Of the residual stream. */
  width: { student: number; teacher: number };
}

/** Of a block: the residual stream behind it, and what its attention reads. */
export const featureKinds = ["stream", "q", "k", "v"] as const;
/** One of `featureKinds`. */
export type FeatureKind = (typeof featureKinds)[number];

/** Name, in a batch, of what a block of the teacher has: f32 [tokens, width]. */
export const featureName = (kind: FeatureKind, block: number): string => `teacher.${kind}.${block}`;

/** What a model shows of itself to one that is to become like it. */
export interface Shown {
  /** Its logits, under `teacherName`. */
  logits: boolean;
  /** Blocks whose features are shown, under `featureName`. */
  blocks: readonly number[];
  kinds: readonly FeatureKind[];
}

/** Every block of a student with `student` of them beside the block as far up in a teacher, the last beside the last (TinyBERT). */
export const spreadBlocks = (student: number, teacher: number): MatchedBlocks[] =>
  Array.from({ length: student }, (_, i) => [i, Math.max(1, Math.round(((i + 1) * teacher) / student)) - 1]);

/** @throws UsageError for blocks that the models do not have or that cannot be related, and for a matching of nothing */
export function matchingOf(
  { layers, relationHeads, ...options }: MatchingOptions,
  student: ModelSpec,
  teacher: ModelSpec,
): Matching {
  if (options.hidden === 0 && options.relations === 0)
    throw new UsageError("nothing is matched where the weights of hidden states and of relations are both 0");
  const pairs = layers ?? spreadBlocks(student.blocks.length, teacher.blocks.length);
  if (new Set(pairs.map(projectionName)).size < pairs.length)
    throw new UsageError("two blocks are to be matched twice: name each student:teacher once");
  const matched = pairs.flatMap(([own, other]) => [
    blockOf(student, own, "student"),
    blockOf(teacher, other, "teacher"),
  ]);
  const heads = relationHeads ?? findStep(matched[0].block, "attend")?.heads ?? 1;
  if (options.relations > 0) for (const one of matched) checkRelations(one, heads);
  return {
    ...options,
    relationHeads: heads,
    layers: pairs,
    width: { student: student.hiddenSize, teacher: teacher.hiddenSize },
  };
}

interface NamedBlock {
  block: BlockSpec;
  name: string;
}

function blockOf({ blocks }: ModelSpec, number: number, who: string): NamedBlock {
  if (number < blocks.length) return { block: blocks[number], name: `block ${number} of the ${who}` };
  throw new UsageError(`the ${who} has no block ${number} to be matched: it has ${blocks.length}, from 0`);
}

function checkRelations({ block, name }: NamedBlock, heads: number): void {
  const attend = findStep(block, "attend");
  if (attend === undefined) throw new UsageError(`${name} does not attend, so that no relations can be matched`);
  const { kv } = attend;
  const widths = { queries: attend.heads * kv.k, keys: kv.heads * kv.k, values: kv.heads * kv.v };
  for (const [what, width] of Object.entries(widths)) {
    if (width % heads !== 0)
      throw new UsageError(
        `the ${what} of ${name} are ${width} wide, which are not ${heads} heads; give relationHeads that divide all widths`,
      );
  }
}

/** What a teacher must show for a matching. */
export function shownFor({ hidden, relations, layers }: Matching): Omit<Shown, "logits"> {
  const kinds = featureKinds.filter((kind) => (kind === "stream" ? hidden : relations) > 0);
  return { blocks: [...new Set(layers.map(([, teacher]) => teacher))], kinds };
}

/** Name of the matrix through which a block is seen by the teacher's. */
export const projectionName = ([student, teacher]: MatchedBlocks): string => `matching ${student}:${teacher}`;

/** The matrices [teacher's width, student's width] that are learnt beside a model, and thrown away with the teacher. */
export function projectionsOf({ hidden, layers, width }: Matching): ParameterInfo[] {
  if (hidden === 0 || width.student === width.teacher) return [];
  const shape = [width.teacher, width.student];
  return layers.map((pair) => ({ name: projectionName(pair), shape, layer: "", role: "dense" }));
}

/** First values of `projectionsOf`: random, so that what goes through keeps its length on average. */
export function initialProjections(matching: Matching, seed: number): Map<string, FloatArray> {
  const random = randomFor(seed, "matching");
  const { student, teacher } = matching.width;
  const values = () => Float32Array.from({ length: teacher * student }, () => random.normal() / Math.sqrt(student));
  return new Map(projectionsOf(matching).map(({ name }) => [name, values()]));
}

import * as z from "zod/mini";
import { FormatError } from "../core/index.js";
import { checkSchema } from "../core/internal.js";
import type { FilterStep } from "./definition/schema.js";
import { compilePattern } from "./patterns.js";

/** Makes of an answer what is compared. */
export type AnswerFilter = (answer: string) => string;

interface FilterKind {
  schema: z.ZodMiniType;
  build(options: never, file: string, field: string): Promise<AnswerFilter> | AnswerFilter;
}

const none = z.strictObject({});
const kind = <Schema extends z.ZodMiniType>(
  schema: Schema,
  build: (options: z.infer<Schema>, file: string, field: string) => Promise<AnswerFilter> | AnswerFilter,
): FilterKind => ({ schema, build });

/** Filters by the names that task files call them by. There is one answer to each document, so that of several the first is it. */
const filterKinds: Readonly<Record<string, FilterKind>> = {
  take_first: kind(none, () => (answer) => answer),
  majority_vote: kind(none, () => (answer) => answer),
  remove_whitespace: kind(none, () => (answer) => answer.trim()),
  lowercase: kind(none, () => (answer) => answer.toLowerCase()),
  uppercase: kind(none, () => (answer) => answer.toUpperCase()),
  map: kind(
    z.strictObject({
      mapping_dict: z.record(z.string(), z.coerce.string()),
      default_value: z._default(z.coerce.string(), "None"),
    }),
    ({ mapping_dict: entries, default_value: preset }) =>
      (answer) =>
        Object.hasOwn(entries, answer) ? entries[answer] : preset,
  ),
  regex: kind(
    z.strictObject({
      regex_pattern: z._default(z.string().check(z.maxLength(4096)), "#### (\\-?[0-9\\.\\,]+)"),
      group_select: z._default(z.int().check(z.gte(-1000), z.lte(1000)), 0),
      fallback: z._default(z.string().check(z.maxLength(4096)), "[invalid]"),
    }),
    async ({ regex_pattern: source, group_select: place, fallback }, file, field) => {
      const pattern = await compilePattern(source, file, `${field}.regex_pattern`);
      return (answer) => {
        const groups = pattern.findAll(answer).at(place);
        if (groups === undefined) return fallback;
        // Of several groups the first that holds something; a single one counts as it is.
        const part = groups.length === 1 ? groups[0] : groups.find((group) => group !== "");
        return (part ?? fallback).trim();
      };
    },
  ),
};

/** The filters of one entry of `filter_list`, one after the other. @throws FormatError for one that is not known */
export async function compileFilters(steps: readonly FilterStep[], file: string, field: string): Promise<AnswerFilter> {
  const filters: AnswerFilter[] = [];
  for (const [i, { function: name, ...options }] of steps.entries()) {
    const place = `${field}.${i}`;
    if (!Object.hasOwn(filterKinds, name)) {
      const expected = `one of ${Object.keys(filterKinds).join(", ")}`;
      throw new FormatError({ file, field: `${place}.function`, problem: `there is no filter ${name}`, expected });
    }
    const { schema, build } = filterKinds[name];
    filters.push(await build(checkSchema(schema, options, `${file}: ${place}`) as never, file, place));
  }
  return (answer) => filters.reduce((text, filter) => filter(text), answer);
}

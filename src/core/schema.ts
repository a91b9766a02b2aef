import type * as z from "zod/mini";
import { safeParse } from "zod/mini";
import en from "zod/v4/locales/en.js";
import { FormatError } from "./errors.js";

/** Wrong fields that are named beside the first. */
const othersNamed = 5;

/** Checks parsed JSON against a schema. @throws FormatError that names the wrong fields, the first as its own. */
export function checkSchema<T>(schema: z.core.$ZodType<T>, raw: unknown, file: string, hint?: string): T {
  const result = parseSchema(schema, raw);
  if (result.success) return result.data;
  const [first, ...others] = result.error.issues.flatMap((issue) => withinUnions(issue));
  const pathOf = ({ path }: z.core.$ZodIssue) => path.map(String).join(".");
  const also = others
    .slice(0, othersNamed)
    .map((issue) => (issue.path.length === 0 ? issue.message : `${pathOf(issue)}: ${issue.message}`));
  if (others.length > othersNamed) also.push(`${others.length - othersNamed} more problems`);
  throw new FormatError({
    file,
    field: pathOf(first) || undefined,
    problem: also.length === 0 ? first.message : `${first.message} (also ${also.join("; ")})`,
    hint,
  });
}

/**
 * Of a value that is none of several forms what is wrong with the form that it comes nearest to: the one whose check went furthest
 * into it. Without that a union says no more than "Invalid input".
 */
function withinUnions(issue: z.core.$ZodIssue): z.core.$ZodIssue[] {
  if (issue.code !== "invalid_union") return [issue];
  const depthOf = (issues: readonly z.core.$ZodIssue[]) => Math.max(...issues.map(({ path }) => path.length));
  const forms = issue.errors.map((issues) => issues.flatMap((one) => withinUnions(one)));
  const [nearest] = forms.sort((a, b) => depthOf(b) - depthOf(a) || a.length - b.length);
  if (nearest === undefined || depthOf(nearest) === 0) return [issue];
  return nearest.map((one) => ({ ...one, path: [...issue.path, ...one.path] }));
}

/** zod/mini has no language of its own, and one set for all of zod would be another package's too. */
const { localeError } = en();

/**
 * Checks a value against a schema, with messages in English. A check of a length asks whatever has one, after it was found to be no
 * text: of an object whose `length` is an object without a text it makes a TypeError, which is one problem here.
 * @returns zod's result
 */
export function parseSchema<T>(schema: z.core.$ZodType<T>, raw: unknown): z.core.util.SafeParseResult<T> {
  try {
    return safeParse(schema, raw, { error: localeError });
  } catch (error) {
    if (!(error instanceof TypeError) || !error.message.startsWith("Cannot convert object to primitive")) throw error;
    const message = "an object stands in place of a text or a number";
    const issues: z.core.$ZodIssue[] = [{ code: "custom", path: [], message, input: raw }];
    return { success: false, error: { issues } as z.core.$ZodError<T> };
  }
}

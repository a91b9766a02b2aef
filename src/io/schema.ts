import type { z } from "zod";
import { FormatError } from "../core/index.js";

/** Checks parsed JSON against a schema. @throws FormatError that names the first wrong field and counts the others. */
export function checkSchema<T>(schema: z.ZodType<T>, raw: unknown, file: string, hint?: string): T {
  const result = schema.safeParse(raw);
  if (result.success) return result.data;
  const [first, ...others] = result.error.issues;
  const path = first.path.map(String).join(".");
  throw new FormatError({
    file,
    field: path === "" ? undefined : path,
    problem: others.length === 0 ? first.message : `${first.message} (and ${others.length} more problems)`,
    hint,
  });
}

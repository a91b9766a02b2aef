// @ts-expect-error: plain JavaScript without types
import * as plain from "../../scripts/mutation/seeds.mjs";

/** The small right models that damage starts from, shared with `scripts/mutate-readers.mjs`. */
// biome-ignore lint/suspicious/noExplicitAny: they are descriptions of files, of any shape
export const seeds: any = plain;

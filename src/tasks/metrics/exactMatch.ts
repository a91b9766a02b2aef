import type { Pattern } from "../patterns.js";

/** What does not count when two texts are compared. */
export interface ExactMatchOptions {
  /** Found parts are left out first. */
  ignored?: readonly Pattern[];
  ignoreCase?: boolean;
  /** That of ASCII. */
  ignorePunctuation?: boolean;
  /** Digits 0–9. */
  ignoreNumbers?: boolean;
}

/** Whether two texts are the same but for what does not count. */
export function exactMatch(a: string, b: string, options: ExactMatchOptions): boolean {
  return plain(a, options) === plain(b, options);
}

function plain(
  text: string,
  { ignored = [], ignoreCase, ignorePunctuation, ignoreNumbers }: ExactMatchOptions,
): string {
  let rest = ignored.reduce((left, pattern) => pattern.without(left), text);
  if (ignoreCase) rest = rest.toLowerCase();
  if (ignorePunctuation) rest = rest.replace(/[!-/:-@[-`{-~]/g, "");
  return ignoreNumbers ? rest.replace(/[0-9]/g, "") : rest;
}

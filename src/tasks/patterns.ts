import { FormatError, quote } from "../core/index.js";

/** A regular expression of a task file. */
export interface Pattern {
  /** As Python's `findall`: of each match what its groups hold, the whole match where it has none. */
  findAll(text: string): string[][];
  /** The text without what matches. */
  without(text: string): string;
}

/**
 * Reads a regular expression. It is one of RE2, whose time grows with the text only: an expression of a file must not be able to
 * run for ever.
 * @throws FormatError for one that RE2 does not have (looking ahead or back, references)
 */
export async function compilePattern(source: string, file: string, field: string): Promise<Pattern> {
  const { RE2JS } = await import("re2js");
  let program: ReturnType<typeof RE2JS.compile>;
  try {
    program = RE2JS.compile(source);
  } catch (cause) {
    const problem = `the expression ${quote(source)}: ${(cause as Error).message}`;
    throw new FormatError({ file, field, problem, expected: "one that RE2 has" }, { cause });
  }
  return {
    findAll(text) {
      const matcher = program.matcher(text);
      const groups = program.groupCount();
      const found: string[][] = [];
      while (matcher.find()) {
        const parts =
          groups === 0 ? [matcher.group(0)] : Array.from({ length: groups }, (_, i) => matcher.group(i + 1));
        found.push(parts.map((part) => part ?? ""));
      }
      return found;
    },
    without: (text) => program.matcher(text).replaceAll(""),
  };
}

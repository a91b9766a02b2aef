import { FormatError } from "../core/index.js";
import type { LocalModelFiles } from "../io/index.js";
import { type ExportOptions, type ExportResult, exportModel } from "../io/index.node.js";
import { loadTokenizer } from "../text/index.js";

/**
 * `exportModel`, and both tokenizers turn samples into the same tokens before the output gets its name.
 * @param output a file for GGUF, a directory for the others
 * @throws what `exportModel` does; FormatError when the tokens differ
 */
export function exportAndCompare(
  files: LocalModelFiles,
  output: string,
  options: Omit<ExportOptions, "check">,
): Promise<ExportResult> {
  return exportModel(files, output, { ...options, check: (exported) => compareTokenizers(files, exported) });
}

/** Letters, digits, spaces, line ends, accents and other scripts: where rules for splitting differ. */
const sample =
  "The year 1999 wasn't 2000's; they'll say:  \"Zażółć gęślą jaźń\"\n\n\tx_1 += 12345.678e-9;\r\n 漢字かな 한국어 Ελληνικά עברית 🦉🏽 ";

/** @throws FormatError when the exported tokenizer gives other tokens for a sample */
async function compareTokenizers(original: LocalModelFiles, exported: LocalModelFiles): Promise<void> {
  if (!(await original.names()).includes("tokenizer.json")) return;
  const [before, after] = await Promise.all([loadTokenizer(original), loadTokenizer(exported)]);
  const specials = Array.from(before.specialIds, (id) => before.tokenOf(id)).join("a");
  for (const text of [sample, specials]) {
    const [wanted, found] = [before.encode(text), after.encode(text)];
    const place = wanted.findIndex((id, i) => id !== found[i]);
    if (place < 0 && wanted.length === found.length) continue;
    throw new FormatError({
      file: exported.location,
      field: "tokenizer",
      problem: `read back: token ${place} of a sample is ${found[place]}`,
      expected: String(wanted[place]),
    });
  }
}

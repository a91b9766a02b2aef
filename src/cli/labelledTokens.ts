import { isEncoder, type ModelConfig } from "../arch/index.js";
import { FormatError, UsageError } from "../core/index.js";
import { type ModelFiles, openCheckpoint, sha256Hex } from "../io/index.js";
import { describeDecoder } from "../model/index.js";
import type { LabelledTokens } from "../pipeline/index.js";
import type { Tokenizer } from "../text/index.js";
import { beginToken } from "../text/internal.js";
import { parseLabelledText } from "../train/index.js";
import type { Context } from "./command.js";
import { openTokenizer } from "./tokenizer.js";

/** Whether a file's content has a label in front of every text. */
export const isLabelled = (content: string): boolean => /^label\ttext\r?\n/.test(content);

/** The tokens of a text, at most `most`; what ends a text stays at its end ("[SEP]"). @param bos begin with the begin-of-text token */
export function tokensOfText(tokenizer: Tokenizer, text: string, most: number, bos = false): Uint32Array {
  const own = tokenizer.encode(text);
  const tokens = bos ? Uint32Array.of(beginToken(tokenizer), ...own) : own;
  if (tokens.length === 0) throw new UsageError("a text has no tokens");
  if (tokens.length <= most) return tokens;
  const cut = tokens.slice(0, most);
  const end = tokens[tokens.length - 1];
  if (tokenizer.specialIds.has(end)) cut[most - 1] = end;
  return cut;
}

/**
 * A file of labelled texts as tokens with the numbers that the model's classes have.
 * @param most tokens of a text
 * @throws FormatError for a label that the model does not have, UsageError for a model that does not classify
 */
export async function labelledTokens(
  context: Pick<Context, "signal" | "onProgress" | "warn">,
  files: ModelFiles,
  { text, name, most, bos }: { text: string; name: string; most: number; bos: boolean | undefined },
): Promise<LabelledTokens> {
  const rows = parseLabelledText(text, name);
  const config = await configOf(files);
  const { head } = config.spec;
  if (head.kind !== "classifier" || !isEncoder(config.spec)) {
    throw new UsageError(`${name} has labels, and ${files.location} does not classify; give a plain text`);
  }
  const tokenizer = await openTokenizer(context, files);
  const cut = Math.min(most, config.maxPositions);
  return {
    texts: rows.map((row) => tokensOfText(tokenizer, row.text, cut, bos)),
    labels: rows.map(({ label }, i) => {
      const found = head.labels.indexOf(label);
      if (found >= 0) return found;
      const expected = `one of ${head.labels.join(", ")}`;
      throw new FormatError({
        file: name,
        field: `text ${i + 1}`,
        problem: `label ${JSON.stringify(label)}`,
        expected,
      });
    }),
    sha256: await sha256Hex(text),
    name,
  };
}

async function configOf(files: ModelFiles): Promise<ModelConfig> {
  const checkpoint = await openCheckpoint(files);
  try {
    return (await describeDecoder(checkpoint)).config;
  } finally {
    await checkpoint.close();
  }
}

import { isEncoder, type ModelConfig } from "../arch/index.js";
import { FormatError, UsageError } from "../core/index.js";
import { type ModelFiles, openCheckpoint, sha256Hex } from "../io/index.js";
import { describeDecoder } from "../model/index.js";
import type { LabelledTokens } from "../pipeline/index.js";
import { tokensOfText } from "../text/internal.js";
import { parseLabelledText } from "../train/index.js";
import type { Context } from "./command.js";
import { openTokenizer } from "./tokenizer.js";

/** Whether a file's content has a label in front of every text. */
export const isLabelled = (content: string): boolean => /^label\ttext\r?\n/.test(content);

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

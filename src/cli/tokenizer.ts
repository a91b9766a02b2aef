import type { ModelFiles } from "../io/index.js";
import { loadTokenizer, type Tokenizer } from "../text/index.js";
import type { Context } from "./command.js";

/** The tokenizer of a model; warns of what its files say that is not followed. */
export async function openTokenizer({ warn }: Pick<Context, "warn">, files: ModelFiles): Promise<Tokenizer> {
  const tokenizer = await loadTokenizer(files);
  for (const { file, field, problem } of tokenizer.warnings) warn(`${file}: ${field}: ${problem}`);
  return tokenizer;
}

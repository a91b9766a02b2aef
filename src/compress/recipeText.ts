import { FormatError } from "../core/index.js";
import { parseRecipe, type Recipe } from "./recipe.js";

const maxCharacters = 1_000_000;

/**
 * A recipe from the text of a YAML or JSON file (JSON is YAML).
 * @param file for messages
 * @throws FormatError with the line of a syntax error, or the field that is wrong
 */
export async function parseRecipeText(text: string, file: string): Promise<Recipe> {
  if (text.length > maxCharacters) {
    throw new FormatError({ file, problem: `${text.length} characters`, expected: `at most ${maxCharacters}` });
  }
  // Loaded here, because few who import this folder read recipes from files.
  const { parseDocument } = await import("yaml");
  const document = parseDocument(text, { uniqueKeys: true, prettyErrors: true, version: "1.2", schema: "core" });
  const [error] = document.errors;
  if (error !== undefined) throw new FormatError({ file, problem: error.message.split("\n")[0] }, { cause: error });
  let raw: unknown;
  try {
    // Aliases that expand to billions of nodes are refused.
    raw = document.toJS({ maxAliasCount: 100 });
  } catch (cause) {
    throw new FormatError({ file, problem: (cause as Error).message }, { cause });
  }
  return parseRecipe(raw, file);
}

import { FormatError, quote } from "../core/index.js";
import { parseRecipe, type Recipe } from "./recipe.js";

const maxCharacters = 250_000;

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
  const { isScalar, parseDocument, visit } = await import("yaml");
  let raw: unknown;
  try {
    // The library compares each key with each other; here a set of them does.
    const document = parseDocument(text, { uniqueKeys: false, prettyErrors: true, version: "1.2", schema: "core" });
    const [error] = document.errors;
    if (error !== undefined) throw error;
    visit(document, {
      Map(_key, { items }) {
        const keys = new Set<unknown>();
        for (const { key } of items) {
          const name = isScalar(key) ? key.value : key;
          if (keys.has(name)) throw new Error(`Map keys must be unique: ${quote(name)} occurs twice`);
          keys.add(name);
        }
      },
    });
    // Aliases that expand to billions of nodes are refused.
    raw = document.toJS({ maxAliasCount: 100 });
  } catch (cause) {
    const deep = cause instanceof RangeError ? "it is nested too deep" : (cause as Error).message.split("\n")[0];
    throw new FormatError({ file, problem: deep }, { cause });
  }
  return parseRecipe(raw, file);
}

import { parseYaml } from "../io/internal.js";
import { parseRecipe, type Recipe } from "./recipe.js";

const maxCharacters = 250_000;

/**
 * A recipe from the text of a YAML or JSON file (JSON is YAML).
 * @param file for messages
 * @throws FormatError with the line of a syntax error, or the field that is wrong
 */
export async function parseRecipeText(text: string, file: string): Promise<Recipe> {
  return parseRecipe(await parseYaml(text, file, { maxCharacters }), file);
}

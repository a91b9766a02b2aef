import { FormatError } from "../core/index.js";
import type { ModelFiles } from "./byteSource.js";
import { isJsonObject, readJsonFile } from "./json.js";
import { readTextFile } from "./textFile.js";

const maxTemplateBytes = 2 ** 20;

/** The name of the template that is used unless another is asked for. */
export const defaultTemplate = "default";

/**
 * The chat templates of a model by name, from wherever tools keep them: `chat_template.jinja` (what transformers saves), else
 * `chat_template` of `tokenizer_config.json`: one text, or a list of named ones.
 * @throws FormatError
 */
export async function readChatTemplates(files: ModelFiles): Promise<Map<string, string>> {
  const own = await readTextFile(files, "chat_template.jinja", maxTemplateBytes);
  const config = await readJsonFile(files, "tokenizer_config.json");
  const field = isJsonObject(config) ? config.chat_template : undefined;
  const templates = new Map<string, string>();
  for (const entry of Array.isArray(field) ? field : [{ name: defaultTemplate, template: field ?? undefined }]) {
    const { name, template } = isJsonObject(entry) ? entry : {};
    if (template === undefined && !Array.isArray(field)) continue;
    if (typeof name !== "string" || typeof template !== "string") {
      throw new FormatError({
        file: `${files.location}/tokenizer_config.json`,
        field: "chat_template",
        problem: "an entry without a name and a text",
        expected: `a text, or a list of { "name", "template" }`,
      });
    }
    templates.set(name, template);
  }
  if (own !== undefined) templates.set(defaultTemplate, own);
  return templates;
}

import { FormatError, quote } from "../core/index.js";
import { isJsonObject } from "../io/index.js";

/**
 * The post-processor of a tokenizer.json with the tokens that its ids stand for. The Rust library writes the ids; the one that
 * runs here looks names up, which the file may choose as it likes.
 * @param contentOf the token of an id
 * @throws FormatError for ids that are not in the vocabulary
 */
export function withTokensOfIds(
  step: unknown,
  contentOf: ReadonlyMap<number, string>,
  file: string,
  field = "post_processor",
): unknown {
  if (!isJsonObject(step)) return step;
  const token = (id: unknown, of: string) => {
    const content = contentOf.get(id as number);
    if (content !== undefined) return content;
    throw new FormatError({ file, field: `${field}.${of}`, problem: `the id ${quote(id)} is not in the vocabulary` });
  };
  if (Array.isArray(step.processors)) {
    const processors = step.processors.map((inner, i) =>
      withTokensOfIds(inner, contentOf, file, `${field}.processors.${i}`),
    );
    return { ...step, processors };
  }
  if (step.type === "TemplateProcessing" && Array.isArray(step.single) && isJsonObject(step.special_tokens)) {
    const named = step.special_tokens;
    const single = step.single.flatMap((item) => {
      const special = isJsonObject(item) && isJsonObject(item.SpecialToken) ? item.SpecialToken : {};
      const entry = typeof special.id === "string" && Object.hasOwn(named, special.id) ? named[special.id] : undefined;
      if (!isJsonObject(entry) || !Array.isArray(entry.ids)) return [item];
      const tokens = entry.ids.map((id) => token(id, `special_tokens.${special.id}`));
      return tokens.map((id) => ({ SpecialToken: { ...special, id } }));
    });
    return { ...step, single };
  }
  if (step.type === "BertProcessing" || step.type === "RobertaProcessing") {
    const ends = (["sep", "cls"] as const).map((name) => {
      const value = step[name];
      return [name, Array.isArray(value) && value.length > 1 ? [token(value[1], name), value[1]] : value];
    });
    return { ...step, ...Object.fromEntries(ends) };
  }
  return step;
}

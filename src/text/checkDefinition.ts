import { FormatError, quote } from "../core/index.js";
import { isJsonObject } from "../io/index.js";
import { isBehavior } from "./exactSteps.js";

/** Ids above this belong to no known tokenizer; the library would make arrays of that length. */
const maxTokenId = 2 ** 24;
/** Steps inside each other; published ones have two. */
const maxDepth = 16;
/** Steps of one part; published ones have up to thirty. */
const maxSteps = 256;
/** Characters of a pattern, and of a text that a step puts in; published ones have up to 600, and 3. */
const maxPattern = 16_384;
const maxContent = 256;
const contents = ["content", "replacement", "str_rep", "prepend", "prefix", "suffix", "word_delimiter_token"] as const;
/** What holds the steps of a sequence, by part. */
const sequences = ["normalizers", "pretokenizers", "processors", "decoders"] as const;

/**
 * Checks of a tokenizer.json what the library that runs it does not: ids, before arrays are indexed with them, and patterns.
 * @throws FormatError
 */
export function checkDefinition(definition: unknown, file: string): void {
  const fail = (field: string, problem: string, expected?: string) =>
    new FormatError({ file, field, problem, expected });
  const checkId = (id: unknown, field: string, token: string) => {
    if (Number.isInteger(id) && (id as number) >= 0 && (id as number) <= maxTokenId) return;
    throw fail(field, `id ${quote(id)} of ${quote(token)}`, `an integer from 0 to ${maxTokenId}`);
  };

  const fields = isJsonObject(definition) ? definition : {};
  const { model } = fields;
  if (!isJsonObject(model)) throw fail("model", "not a JSON object");
  if (isJsonObject(model.vocab)) {
    for (const [token, id] of Object.entries(model.vocab)) checkId(id, "model.vocab", token);
  }
  if (Array.isArray(model.vocab)) {
    const wrong = model.vocab.findIndex((entry) => typeof (Array.isArray(entry) ? entry[0] : entry) !== "string");
    if (wrong >= 0) throw fail("model.vocab", `entry ${wrong} has no text`);
  }
  const prefix = model.continuing_subword_prefix;
  if (model.type === "BPE" && prefix != null && prefix !== "")
    throw fail("model.continuing_subword_prefix", `BPE with ${quote(prefix)} inside of words is not supported`);
  const added = fields.added_tokens ?? [];
  if (!Array.isArray(added)) throw fail("added_tokens", "not a list");
  for (const token of added) {
    if (!isJsonObject(token) || typeof token.content !== "string")
      throw fail("added_tokens", "an entry without a text");
    checkId(token.id, "added_tokens", token.content);
  }
  let steps = 0;
  for (const part of ["normalizer", "pre_tokenizer", "post_processor", "decoder"]) {
    steps = 0;
    checkStep(fields[part], part, 0);
  }

  function checkStep(step: unknown, field: string, depth: number): void {
    if (!isJsonObject(step)) return;
    if (++steps > maxSteps) throw fail(field, `more than ${maxSteps} steps`);
    if (depth > maxDepth) throw fail(field, `more than ${maxDepth} steps inside each other`);
    if ((step.type === "Split" || step.type === "Replace") && !isPattern(step.pattern))
      throw fail(`${field}.pattern`, "not a pattern", 'an object with one text, "Regex" or "String"');
    if (Object.values(isJsonObject(step.pattern) ? step.pattern : {}).some((text) => String(text).length > maxPattern))
      throw fail(`${field}.pattern`, `more than ${maxPattern} characters`);
    for (const name of contents) {
      const text = step[name];
      if (text === undefined || text === null) continue;
      if (typeof text !== "string") throw fail(`${field}.${name}`, "not a text");
      if (text.length > maxContent) throw fail(`${field}.${name}`, `more than ${maxContent} characters`);
    }
    const cuts = step.type === "Split" || step.type === "Punctuation";
    if (cuts && step.behavior !== undefined && !isBehavior(step.behavior))
      throw fail(
        `${field}.behavior`,
        `${quote(step.behavior)} is not known`,
        "one of Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous",
      );
    if (step.type === "FixedLength" && !(Number.isInteger(step.length) && (step.length as number) > 0))
      throw fail(`${field}.length`, `a length of ${quote(step.length)}`, "a positive integer");
    for (const inner of sequences) {
      const list = step[inner];
      if (Array.isArray(list))
        for (const [i, each] of list.entries()) checkStep(each, `${field}.${inner}.${i}`, depth + 1);
    }
  }
}

const isPattern = (pattern: unknown): boolean =>
  isJsonObject(pattern) && (typeof pattern.Regex === "string" || typeof pattern.String === "string");

import { preTokenizers } from "../../io/internal.js";

/**
 * Patterns of published tokenizers, as their tokenizer.json has them, that take a time in proportion to the text: V8 and
 * its like match them. All others are matched in counted steps, which is slower.
 */
const known: readonly string[] = [
  // GPT-2, and with possessive quantifiers GPT-4.
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
  "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
  // GPT-4o, gpt-oss, Llama 4.
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  // DeepSeek V3 and R1.
  "\\p{N}{1,3}",
  "[一-龥\u3040-ゟ゠-ヿ]+",
  "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
  // BLOOM, Falcon, and blanks that T5 and others join.
  " ?[^(\\s|[.,!?…。，、।۔،])]+",
  "[0-9][0-9][0-9]",
  " {2,}",
  "\\s+",
];

/** The patterns anywhere in rules of tokenizer.json. */
function patternsIn(rules: unknown): string[] {
  if (typeof rules !== "object" || rules === null) return [];
  return Object.entries(rules).flatMap(([key, value]) =>
    key === "Regex" && typeof value === "string" ? [value] : patternsIn(value),
  );
}

const published: ReadonlySet<string> = new Set([...known, ...preTokenizers.flatMap(({ rules }) => patternsIn(rules))]);

/** Whether a pattern, as a tokenizer.json spells it, is one of published tokenizers. */
export const isPublished = (pattern: string): boolean => published.has(pattern);

/**
 * How byte-level BPE splits text before merging: by name in GGUF files (`tokenizer.ggml.pre`), by rules in tokenizer.json.
 * Names of one row split alike in llama.cpp; the first is written.
 */
export interface PreTokenizer {
  names: readonly string[];
  /** `pre_tokenizer` of tokenizer.json. */
  rules: object;
  /** Whole words that are in the vocabulary are taken without merging. */
  ignoreMerges?: boolean;
}

const byteLevel = (useRegex: boolean) => ({
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: useRegex,
});
const split = (regex: string) => ({
  type: "Split",
  pattern: { Regex: regex },
  behavior: "Isolated",
  invert: false,
});
const sequence = (...pretokenizers: object[]) => ({ type: "Sequence", pretokenizers });

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const words = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+";
const signsAndSpaces = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const signsSlashesAndSpaces = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** How texts are cut up before tokens are merged, by the names that GGUF files have for it. */
export const preTokenizers: readonly PreTokenizer[] = [
  { names: ["gpt-2", "mpt", "olmo", "jais", "trillion", "phi-2", "granite-docling"], rules: byteLevel(true) },
  {
    names: ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
    rules: sequence({ type: "Digits", individual_digits: true }, byteLevel(true)),
  },
  {
    names: ["llama-bpe", "llama-v3", "llama3", "dbrx", "smaug-bpe", "falcon3", "chatglm-bpe", "glm4", "pixtral"],
    rules: sequence(split(`${contractions}|${words}|\\p{N}{1,3}|${signsAndSpaces}`), byteLevel(false)),
    ignoreMerges: true,
  },
  {
    names: ["qwen2", "stablelm2", "hunyuan", "deepseek-r1-qwen", "megrez"],
    rules: sequence(split(`${contractions}|${words}|\\p{N}|${signsAndSpaces}`), byteLevel(false)),
  },
  {
    names: ["tekken"],
    rules: sequence(
      split(
        `[^\\r\\n\\p{L}\\p{N}]?${upper}*${lower}+|[^\\r\\n\\p{L}\\p{N}]?${upper}+${lower}*|\\p{N}|${signsSlashesAndSpaces}`,
      ),
      byteLevel(false),
    ),
    ignoreMerges: true,
  },
];

/** The row of a name; undefined when it is not known. */
export const preTokenizerNamed = (name: string): PreTokenizer | undefined =>
  preTokenizers.find(({ names }) => names.includes(name));

/** The row whose rules are those of a tokenizer.json; undefined when there is none. */
export function preTokenizerLike(rules: unknown): PreTokenizer | undefined {
  const wanted = essence(rules);
  return preTokenizers.find((row) => essence(row.rules) === wanted);
}

/** Rules without what does not change how text is split, as text to be compared. */
function essence(rules: unknown): string {
  return JSON.stringify(rules, (_key, value) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
    const { trim_offsets: _offsets, invert: _invert, ...rest } = value as Record<string, unknown>;
    const entries = Object.entries({
      ...rest,
      ...(rest.type === "ByteLevel" && { use_regex: rest.use_regex ?? true }),
    });
    return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

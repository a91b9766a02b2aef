import { FormatError, quote } from "../core/index.js";
import { isJsonObject, type ModelFiles } from "../io/index.js";
import { addedToken, byteLevelParts, preTokenizerNamed, readTextFile, surround } from "../io/internal.js";
import type { TokenizerConfig } from "./tokenizerConfig.js";

const maxMergesBytes = 256 * 2 ** 20;

/** How byte-level tokenizers split texts before merging, by their class in transformers. */
const splitsOfClass: Readonly<Record<string, string>> = {
  GPT2: "gpt-2",
  CodeGen: "gpt-2",
  GPTNeoX: "gpt-2",
  Roberta: "gpt-2",
  Bart: "gpt-2",
  Qwen2: "qwen2",
};

/**
 * The definition of a byte-level BPE from `vocab.json` and the `merges.txt` beside it.
 * @param vocab parsed
 * @param file where it was read, for messages
 * @throws FormatError
 */
export async function byteLevelDefinition(
  vocab: unknown,
  files: ModelFiles,
  file: string,
  config: TokenizerConfig,
): Promise<object> {
  if (!isJsonObject(vocab)) throw new FormatError({ file, problem: "not a JSON object of tokens" });
  const lines = await readTextFile(files, "merges.txt", maxMergesBytes);
  if (lines === undefined) {
    throw new FormatError({
      file: `${files.location}/merges.txt`,
      problem: "there is no such file, and vocab.json needs it",
      hint: "Copy it from where the weights come from",
    });
  }
  const name = String(config.fields.tokenizer_class ?? "GPT2").replace(/Tokenizer(Fast)?$/, "");
  if (!Object.hasOwn(splitsOfClass, name)) {
    throw new FormatError({
      file: `${files.location}/tokenizer_config.json`,
      field: "tokenizer_class",
      problem: `how ${quote(name)} splits texts is not known`,
      expected: `one of ${Object.keys(splitsOfClass).join(", ")}`,
      hint: "Take a copy of the model that has tokenizer.json, which spells it out",
    });
  }
  // One "left right" in a line; the first line may name the version.
  const merges = lines.split(/\r?\n/).filter((line, i) => line !== "" && !(i === 0 && line.startsWith("#version")));
  const pairs = merges.map((line) => line.split(" "));
  const wrong = pairs.findIndex((pair) => pair.length !== 2);
  if (wrong >= 0)
    throw new FormatError({ file: `${files.location}/merges.txt`, problem: `merge ${wrong + 1} is not two tokens` });
  const ids = new Map(Object.entries(vocab) as [string, number][]);
  const specials = (["bos", "eos", "unk", "pad"] as const).flatMap((which) => config.token(which) ?? []);
  const known = (token: string | undefined) => (token !== undefined && ids.has(token) ? token : undefined);
  const surrounds = name === "Roberta" || name === "Bart";
  return {
    version: "1.0",
    added_tokens: [...new Set(specials)].flatMap((token) =>
      ids.has(token) ? [addedToken(ids.get(token)!, token, true)] : [],
    ),
    ...byteLevelParts(ids, pairs, splitting(name, config)),
    post_processor: surround(
      config.adds("bos", surrounds) ? known(config.token("bos")) : undefined,
      config.adds("eos", surrounds) ? known(config.token("eos")) : undefined,
      ids,
    ),
  };
}

function splitting(name: string, config: TokenizerConfig): { rules: object } {
  const { rules } = preTokenizerNamed(splitsOfClass[name])!;
  return config.fields.add_prefix_space === true ? { rules: { ...rules, add_prefix_space: true } } : { rules };
}

import { FormatError, quote } from "../core/index.js";
import { isJsonObject, type ModelFiles, readJsonFile } from "../io/index.js";
import { addedToken, idsOf, readWhole } from "../io/internal.js";
import { checkDefinition } from "./checkDefinition.js";
import { withTokensOfIds } from "./postProcessor.js";
import type { TokenizerConfig } from "./tokenizerConfig.js";

/** Of a tokenizer.model. */
const maxTokenizerBytes = 256 * 2 ** 20;

/** A tokenizer as a tokenizer.json has it, from whatever files a model has, checked. */
export interface TokenizerDefinition {
  /** What the definition was read from, for messages. */
  file: string;
  definition: Record<string, unknown>;
  /** Fields of tokenizer_config.json that it has taken, beside those that every source takes. */
  taken: ReadonlySet<string>;
}

/** Whether tokens are written around a text, which a tokenizer.json says itself. */
const surrounds = ["add_bos_token", "add_eos_token"];

/** Every file that can hold a tokenizer, in the order in which they are looked for; most models have the first. */
const sources: readonly {
  name: string;
  takes: readonly string[];
  read(files: ModelFiles, file: string, config: TokenizerConfig): Promise<object | undefined>;
}[] = [
  {
    name: "tokenizer.json",
    takes: [],
    read: (files) => readJsonFile(files, "tokenizer.json") as Promise<object | undefined>,
  },
  {
    name: "tokenizer.model",
    takes: [...surrounds, "add_prefix_space", "legacy"],
    async read(files, file, config) {
      const source = await files.open("tokenizer.model");
      if (source === undefined) return undefined;
      const { sentencePieceDefinition } = await import("./sentencePiece.js");
      return sentencePieceDefinition(await readWhole(source, maxTokenizerBytes), file, config);
    },
  },
  {
    name: "vocab.json",
    takes: [...surrounds, "add_prefix_space"],
    async read(files, file, config) {
      const vocab = await readJsonFile(files, "vocab.json");
      if (vocab === undefined) return undefined;
      const { byteLevelDefinition } = await import("./byteLevel.js");
      return byteLevelDefinition(vocab, files, file, config);
    },
  },
];

/**
 * Reads `tokenizer.json`, else `tokenizer.model` (SentencePiece), else `vocab.json` with `merges.txt` (byte-level BPE), and
 * adds the tokens that its neighbours name.
 * @throws FormatError
 */
export async function readTokenizerDefinition(
  files: ModelFiles,
  config: TokenizerConfig,
): Promise<TokenizerDefinition> {
  for (const { name, takes, read } of sources) {
    const file = `${files.location}/${name}`;
    const definition = await read(files, file, config);
    if (definition === undefined) continue;
    checkDefinition(definition, file);
    const whole = completed(definition as Record<string, unknown>, file, config);
    return { file, definition: whole, taken: new Set(takes) };
  }
  throw new FormatError({
    file: `${files.location}/tokenizer.json`,
    problem: "there is no such file, and no tokenizer.model or vocab.json with merges.txt",
    hint: "A model's tokenizer is one of these; copy it from where the weights come from",
  });
}

/**
 * The definition with the tokens that its neighbours name beside it. What they say of a token that is there already counts,
 * as in transformers; a token that they call special is found as it stands, even where the definition has it as any other. Its post-processor names the tokens of
 * its ids.
 * @throws FormatError where they give a token, or an id, to another one
 */
function completed(
  definition: Record<string, unknown>,
  file: string,
  config: TokenizerConfig,
): Record<string, unknown> {
  const added = new Map(
    ((definition.added_tokens ?? []) as Record<string, unknown>[]).map((token) => [token.content as string, token]),
  );
  const idOf = vocabularyOf(definition);
  for (const [content, { id }] of added) idOf.set(content, id as number);
  const contentOf = new Map(Array.from(idOf, ([content, id]) => [id, content]));
  for (const { id, content, special, flags, file: neighbour } of config.namedTokens()) {
    const [there, other] = [idOf.get(content) ?? id, contentOf.get(id) ?? content];
    if (there !== id || other !== content) {
      throw new FormatError({
        file: neighbour,
        field: quote(content),
        problem:
          there !== id
            ? `its id is ${id}, and ${there} in ${file}`
            : `its id ${id} is that of ${quote(other)} in ${file}`,
        hint: "The two files belong to different tokenizers; take both from one source",
      });
    }
    const known = added.get(content);
    if (known !== undefined && flags === undefined) continue;
    added.set(content, { ...addedToken(id, content, special), ...known, ...flags, id, content });
    idOf.set(content, id);
    contentOf.set(id, content);
  }
  for (const { content, flags } of config.specials()) {
    const id = idOf.get(content);
    if (id !== undefined && !added.has(content)) added.set(content, { ...addedToken(id, content, true), ...flags, id });
  }
  const post = withTokensOfIds(definition.post_processor, contentOf, file);
  const result = { ...definition, added_tokens: [...added.values()], post_processor: post };
  checkDefinition(result, file);
  return result;
}

/** Token to id, of a vocabulary that is an object or a list of tokens with scores. */
function vocabularyOf(definition: Record<string, unknown>): Map<string, number> {
  const { vocab } = definition.model as Record<string, unknown>;
  if (Array.isArray(vocab)) return idsOf(vocab.map((entry) => String(Array.isArray(entry) ? entry[0] : entry)));
  return new Map(Object.entries(isJsonObject(vocab) ? vocab : {}) as [string, number][]);
}

import { FormatError, quote } from "../core/index.js";
import { isJsonObject, type ModelFiles, readJsonFile } from "../io/index.js";

export type SpecialTokenName = "bos" | "eos" | "unk" | "pad";

/** A token that a neighbour of tokenizer.json names. */
export interface NamedToken {
  id: number;
  content: string;
  /** As in `added_tokens` of tokenizer.json; absent where the neighbour does not say. */
  flags?: Readonly<Record<string, unknown>>;
  special: boolean;
  /** The file that names it, for messages. */
  file: string;
}

const configName = "tokenizer_config.json";
const mapName = "special_tokens_map.json";
const addedName = "added_tokens.json";

/** What lies beside a tokenizer's own file: `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`. */
export class TokenizerConfig {
  constructor(
    readonly location: string,
    /** `tokenizer_config.json`; empty where there is none. */
    readonly fields: Readonly<Record<string, unknown>>,
    readonly specialTokens: Readonly<Record<string, unknown>> = {},
    readonly addedTokens: Readonly<Record<string, unknown>> = {},
  ) {}

  /** @throws FormatError */
  static async read(files: ModelFiles): Promise<TokenizerConfig> {
    const object = async (name: string) => {
      const value = (await readJsonFile(files, name)) ?? {};
      if (isJsonObject(value)) return value;
      throw new FormatError({ file: `${files.location}/${name}`, problem: "not a JSON object" });
    };
    return new TokenizerConfig(
      files.location,
      await object(configName),
      await object(mapName),
      await object(addedName),
    );
  }

  /** The text of a special token, by the config or the map. */
  token(name: SpecialTokenName): string | undefined {
    for (const fields of [this.fields, this.specialTokens]) {
      const content = contentOf(fields[`${name}_token`]);
      if (content !== undefined) return content;
    }
    return undefined;
  }

  /** Whether the tokenizer writes that token around a text (`add_bos_token`, `add_eos_token`). */
  adds(name: "bos" | "eos", preset: boolean): boolean {
    const value = this.fields[`add_${name}_token`];
    return typeof value === "boolean" ? value : preset;
  }

  /**
   * Tokens that a tokenizer.json may lack: those of `added_tokens_decoder` or, where the config has none, of
   * `added_tokens.json`, as transformers takes them.
   * @throws FormatError for entries that are none
   */
  namedTokens(): NamedToken[] {
    const decoder = this.fields.added_tokens_decoder;
    if (isJsonObject(decoder) && Object.keys(decoder).length > 0) {
      const file = `${this.location}/${configName}`;
      return Object.entries(decoder).map(([id, token]) => {
        if (!/^\d+$/.test(id) || !isJsonObject(token) || typeof token.content !== "string")
          throw new FormatError({ file, field: `added_tokens_decoder.${id.slice(0, 40)}`, problem: "not a token" });
        return { id: Number(id), content: token.content, special: token.special === true, flags: token, file };
      });
    }
    const file = `${this.location}/${addedName}`;
    const special = this.#specialContents();
    return Object.entries(this.addedTokens).map(([content, id]) => {
      if (!Number.isInteger(id))
        throw new FormatError({
          file,
          field: quote(content),
          problem: "an id that is no integer",
        });
      return { id: id as number, content, special: special.has(content), file };
    });
  }

  /** Every token that the config or the map calls special. */
  #specialContents(): Set<string> {
    const contents = new Set<string>();
    const add = (value: unknown) => {
      const content = contentOf(value);
      if (content !== undefined) contents.add(content);
    };
    for (const fields of [this.fields, this.specialTokens]) {
      for (const [key, value] of Object.entries(fields)) {
        if (key.endsWith("_token")) add(value);
        if (key.endsWith("_special_tokens") && Array.isArray(value)) for (const token of value) add(token);
      }
    }
    return contents;
  }
}

function contentOf(token: unknown): string | undefined {
  const content = isJsonObject(token) ? token.content : token;
  return typeof content === "string" ? content : undefined;
}

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

/** A token that tokenizer_config.json or special_tokens_map.json calls special. */
export interface SpecialToken {
  content: string;
  /** Where it says so. */
  field: string;
  file: string;
  /** As in `added_tokens` of tokenizer.json, as far as they are given. */
  flags: Readonly<Record<string, unknown>>;
}

/** Fields that name several. */
const lists = ["additional_special_tokens", "extra_special_tokens"];
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
    for (const { fields } of this.#namers()) {
      const content = this.contentOf(fields[`${name}_token`]);
      if (content !== undefined) return content;
    }
    return undefined;
  }

  /** Whether a field names special tokens. */
  isSpecial(field: string): boolean {
    return field.endsWith("_token") ? !/\badd_/.test(field) : lists.includes(field);
  }

  /** The text of a token as a file names it: itself, or an object that has it. */
  contentOf(token: unknown): string | undefined {
    const content = isJsonObject(token) ? token.content : token;
    return typeof content === "string" ? content : undefined;
  }

  /** Every token that the config or the map calls special, once, and where. */
  specials(): SpecialToken[] {
    const found = new Map<string, SpecialToken>();
    for (const { fields, file } of this.#namers()) {
      for (const [field, value] of Object.entries(fields)) {
        if (!this.isSpecial(field)) continue;
        const tokens = field.endsWith("_token") ? [value] : isJsonObject(value) ? Object.values(value) : value;
        for (const token of Array.isArray(tokens) ? tokens : []) {
          const content = this.contentOf(token);
          if (content === undefined || content === "" || found.has(content)) continue;
          found.set(content, { content, field, file, flags: isJsonObject(token) ? token : {} });
        }
      }
    }
    return [...found.values()];
  }

  /** What names special tokens; of two that differ the first counts, as in transformers. */
  #namers(): { fields: Readonly<Record<string, unknown>>; file: string }[] {
    const config = { fields: this.fields, file: `${this.location}/${configName}` };
    const map = { fields: this.specialTokens, file: `${this.location}/${mapName}` };
    return this.listsAddedTokens ? [config, map] : [map, config];
  }

  /** Whether the config lists the added tokens itself; without that list the older files beside it are asked first. */
  get listsAddedTokens(): boolean {
    const decoder = this.fields.added_tokens_decoder;
    return isJsonObject(decoder) && Object.keys(decoder).length > 0;
  }

  /** Whether the tokenizer writes that token around a text (`add_bos_token`, `add_eos_token`). */
  adds(name: "bos" | "eos", preset: boolean): boolean {
    return this.says(`add_${name}_token`) ?? preset;
  }

  /** What a field says that is true or false. */
  says(field: string): boolean | undefined {
    const value = this.fields[field];
    return typeof value === "boolean" ? value : undefined;
  }

  /**
   * Tokens that a tokenizer.json may lack: those of `added_tokens_decoder` or, where the config has none, of
   * `added_tokens.json`, as transformers takes them.
   * @throws FormatError for entries that are none
   */
  namedTokens(): NamedToken[] {
    if (this.listsAddedTokens) {
      const decoder = this.fields.added_tokens_decoder as Record<string, unknown>;
      const file = `${this.location}/${configName}`;
      return Object.entries(decoder).map(([id, token]) => {
        if (!/^\d+$/.test(id) || !isJsonObject(token) || typeof token.content !== "string")
          throw new FormatError({ file, field: `added_tokens_decoder.${id.slice(0, 40)}`, problem: "not a token" });
        return { id: Number(id), content: token.content, special: token.special === true, flags: token, file };
      });
    }
    const file = `${this.location}/${addedName}`;
    const special = new Set(this.specials().map(({ content }) => content));
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
}

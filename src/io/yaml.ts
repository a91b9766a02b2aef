import { FormatError, quote } from "../core/index.js";

/** A text that a file marks with a tag of its own: `!function utils.process_docs`. */
export class TaggedText {
  constructor(
    readonly tag: string,
    readonly text: string,
  ) {}
}

/** How a YAML text is read. */
export interface YamlOptions {
  maxCharacters: number;
  /** Default "1.2"; in "1.1" (PyYAML) yes and no are truth values. */
  version?: "1.1" | "1.2";
  /** Tags of texts that are read as `TaggedText`; others are refused. */
  tags?: readonly string[];
}

/**
 * The value of a YAML or JSON text (JSON is YAML).
 * @param file for messages
 * @throws FormatError with the line of a syntax error, for keys that occur twice, aliases that expand to much and unknown tags
 */
export async function parseYaml(text: string, file: string, options: YamlOptions): Promise<unknown> {
  const { maxCharacters, version = "1.2", tags = [] } = options;
  if (text.length > maxCharacters) {
    throw new FormatError({ file, problem: `${text.length} characters`, expected: `at most ${maxCharacters}` });
  }
  // Loaded here, because few who import this folder read such files.
  const { isScalar, parseDocument, visit } = await import("yaml");
  try {
    // The library compares each key with each other; here a set of them does.
    const document = parseDocument(text, {
      uniqueKeys: false,
      prettyErrors: true,
      version,
      schema: version === "1.1" ? "yaml-1.1" : "core",
      customTags: (known) => [
        ...known,
        ...tags.map((tag) => ({ tag, resolve: (value: string) => new TaggedText(tag, value) })),
      ],
    });
    const [error] = [...document.errors, ...document.warnings];
    if (error !== undefined) throw error;
    visit(document, {
      Map(_key, { items }) {
        const keys = new Set<unknown>();
        for (const { key } of items) {
          const name = isScalar(key) ? key.value : key;
          if (keys.has(name)) throw new Error(`Map keys must be unique: ${quote(name)} occurs twice`);
          keys.add(name);
        }
      },
    });
    // Aliases that expand to billions of nodes are refused.
    return document.toJS({ maxAliasCount: 100 });
  } catch (cause) {
    const deep = cause instanceof RangeError ? "it is nested too deep" : (cause as Error).message.split("\n")[0];
    throw new FormatError({ file, problem: deep }, { cause });
  }
}

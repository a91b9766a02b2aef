import { FormatError } from "../../core/index.js";
import type { GgufHeader, MetadataValue, NumberArray } from "./header.js";

/** The metadata of one file, read by key and type. */
export class Metadata {
  readonly #read = new Set<string>();

  constructor(
    readonly file: string,
    readonly values: GgufHeader["metadata"],
  ) {}

  /** Whether the key is there. */
  has(key: string): boolean {
    this.#read.add(key);
    return this.values.has(key);
  }

  /** Keys under a prefix that nothing has asked for yet, with their values; long ones as their number of entries. */
  unread(prefix: string): Record<string, unknown> {
    const rest = Array.from(this.values).filter(([key]) => key.startsWith(prefix) && !this.#read.has(key));
    return Object.fromEntries(rest.map(([key, value]) => [key, inJson(value)]));
  }

  /** undefined when the key is missing. @throws FormatError when its value is of another kind */
  string(key: string): string | undefined {
    return this.#get(key, (value) => typeof value === "string", "a text");
  }

  boolean(key: string): boolean | undefined {
    return this.#get(key, (value) => typeof value === "boolean", "true or false");
  }

  /** Any number; 64-bit integers up to 2⁵³. */
  number(key: string): number | undefined {
    const value = this.#get<number | bigint>(key, (found) => typeof found === "number" || isExact(found), "a number");
    return value === undefined ? undefined : Number(value);
  }

  strings(key: string): string[] | undefined {
    return this.#get(key, (value) => Array.isArray(value), "texts");
  }

  numbers(key: string): NumberArray | undefined {
    return this.#get(key, (value) => ArrayBuffer.isView(value), "numbers");
  }

  /** @throws FormatError when `value`, read from `key`, is missing */
  require<T>(value: T | undefined, key: string): T {
    if (value !== undefined) return value;
    throw new FormatError({ file: this.file, field: key, problem: "the key is missing" });
  }

  #get<T extends MetadataValue>(key: string, fits: (value: MetadataValue) => boolean, expected: string): T | undefined {
    this.#read.add(key);
    const value = this.values.get(key);
    if (value === undefined || fits(value)) return value as T | undefined;
    throw new FormatError({ file: this.file, field: key, problem: `a value of another kind`, expected });
  }
}

function inJson(value: MetadataValue): unknown {
  if (typeof value === "bigint") return isExact(value) ? Number(value) : String(value);
  return typeof value === "object" ? `${value.length} values` : value;
}

const isExact = (value: MetadataValue) => typeof value === "bigint" && value >= -(2n ** 53n) && value <= 2n ** 53n;

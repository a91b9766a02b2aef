import { InvalidArgumentError } from "commander";

interface Range {
  min: number;
  max?: number;
  /** The range is open at that end. */
  aboveMin?: boolean;
  belowMax?: boolean;
}

function parse(text: string, range: Range, integer: boolean): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  const { min, max = Number.MAX_SAFE_INTEGER, aboveMin = false, belowMax = false } = range;
  const fits =
    Number.isFinite(value) &&
    (!integer || Number.isSafeInteger(value)) &&
    (aboveMin ? value > min : value >= min) &&
    (belowMax ? value < max : value <= max);
  if (!fits) throw new InvalidArgumentError(`Give ${describe(range, integer)}.`);
  return value;
}

function describe({ min, max, aboveMin, belowMax }: Range, integer: boolean): string {
  const kind = integer ? "a whole number" : "a number";
  if (max === undefined) return `${kind} ${aboveMin ? `above ${min}` : `of at least ${min}`}`;
  if (!aboveMin && !belowMax) return `${kind} from ${min} to ${max}`;
  return `${kind} ${aboveMin ? `above ${min}` : `of at least ${min}`} and ${belowMax ? `below ${max}` : `of at most ${max}`}`;
}

/** An option parser for whole numbers; the message of its error names the range. */
export const integer = (range: Range) => (text: string) => parse(text, range, true);

/** An option parser for numbers; the message of its error names the range. */
export const number = (range: Range) => (text: string) => parse(text, range, false);

const units: Readonly<Record<string, number>> = { "": 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** An option parser for bytes: 500M, 8G, 1.5 GiB or plain bytes; units are powers of 1024. */
export function bytes(text: string): number {
  const [, value, unit] = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(text.trim()) ?? [];
  const count = value === undefined ? Number.NaN : Math.round(Number(value) * units[unit.toLowerCase()]);
  if (!Number.isSafeInteger(count) || count < 1) throw new InvalidArgumentError("Give bytes: 500M, 8G, 1.5GiB.");
  return count;
}

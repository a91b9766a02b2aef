/**
 * How things from files stand in messages: short, whatever they are, and harmless on a terminal.
 */

/** Control characters, and those that turn the direction of the text around them. Line ends and tabs stay. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not reach a terminal.
const unprintable = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

const spelt = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** A text whose control characters are spelt out. */
export const cleaned = (text: string): string => text.replace(unprintable, spelt);

/** A text of at most `characters`; what is left out is marked. */
export const clip = (text: string, characters: number): string =>
  text.length > characters ? `${text.slice(0, characters)}…` : text;

/** Levels of a value that are shown; what lies deeper is left out, so that a value of any depth can be quoted. */
const levelsQuoted = 3;
const itemsQuoted = 8;

/** A value of a parsed file as JSON, cut to `characters`. Takes time for what is shown only. */
export function quote(value: unknown, characters = 80): string {
  return clip(quoteLevel(value, levelsQuoted, characters), characters);
}

function quoteLevel(value: unknown, levels: number, characters: number): string {
  if (typeof value === "string") return JSON.stringify(clip(value, characters));
  if (typeof value !== "object" || value === null)
    return value === undefined ? "missing" : clip(String(value), characters);
  const isList = Array.isArray(value);
  const [open, close] = isList ? "[]" : "{}";
  const items: string[] = [];
  const more = () => items.length >= itemsQuoted || levels === 0;
  if (isList) {
    for (let i = 0; i < value.length && items.length <= itemsQuoted; i++) {
      items.push(more() ? "…" : quoteLevel(value[i], levels - 1, characters));
    }
  } else {
    for (const key in value) {
      if (items.length > itemsQuoted) break;
      const item = () => quoteLevel((value as Record<string, unknown>)[key], levels - 1, characters);
      items.push(more() ? "…" : `${JSON.stringify(clip(key, characters))}:${item()}`);
    }
  }
  return open + (levels === 0 && items.length > 0 ? "…" : items.join(",")) + close;
}

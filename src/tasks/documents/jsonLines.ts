import { FormatError } from "../../core/index.js";
import { isJsonObject, parseJson } from "../../io/index.js";
import { decodeUtf8 } from "../../io/internal.js";
import type { Document } from "./document.js";

const maxLines = 5_000_000;

/** The documents of a file with one JSON object a line; lines of blanks are skipped. @throws FormatError with the line */
export function readJsonLines(bytes: Uint8Array, file: string): Document[] {
  const documents: Document[] = [];
  const lines = decodeUtf8(bytes, file).replace(/^\ufeff/, "");
  let [at, line] = [0, 0];
  while (at < lines.length) {
    line++;
    const found = lines.indexOf("\n", at);
    const end = found < 0 ? lines.length : found;
    const text = lines.slice(at, end);
    at = end + 1;
    if (text.trim() === "") continue;
    const place = `${file}, line ${line}`;
    const value = parseJson(new TextEncoder().encode(text), place);
    if (!isJsonObject(value)) throw new FormatError({ file: place, problem: "no JSON object" });
    if (documents.push(value) > maxLines) throw new FormatError({ file, problem: `more than ${maxLines} lines` });
  }
  return documents;
}

/** The documents of a JSON file: one list of objects, or one object a line. @throws FormatError */
export function readJsonDocuments(bytes: Uint8Array, file: string): Document[] {
  const first = bytes.find((byte) => byte > 0x20);
  if (first !== 0x5b) return readJsonLines(bytes, file);
  const values = parseJson(bytes, file, { values: 20_000_000 }) as unknown[];
  return values.map((value, i) => {
    if (!isJsonObject(value)) throw new FormatError({ file, field: String(i), problem: "no JSON object" });
    return value;
  });
}

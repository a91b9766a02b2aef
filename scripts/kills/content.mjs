// What lies in a directory, in a form that can be compared.
import { createHash } from "node:crypto";
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";

/** Fields that tell of the machine, the moment or the place, and of nothing else: layouts are chosen by measured times. */
const passing = /^(elapsedMs|machine|output|peakMemoryBytes|runsAs|\w+PerSecond)$/;
const withoutPassing = (text) =>
  JSON.stringify(JSON.parse(text, (key, value) => (passing.test(key) ? undefined : value)));

/** By path, a hash of every file, without what passes; "→ target" for links. */
export function contentOf(path, prefix = "") {
  if (!existsSync(path)) return {};
  const found = lstatSync(path);
  if (found.isSymbolicLink()) return { [prefix]: `→ ${readlinkSync(path)}` };
  if (found.isDirectory()) {
    const names = readdirSync(path).sort();
    return Object.assign({}, ...names.map((name) => contentOf(join(path, name), `${prefix}/${name}`)));
  }
  let bytes = readFileSync(path);
  if (/\.json$/.test(path)) bytes = Buffer.from(withoutPassing(bytes.toString()));
  if (/\.jsonl$/.test(path)) bytes = Buffer.from(bytes.toString().trim().split("\n").map(withoutPassing).join("\n"));
  return { [prefix]: createHash("sha256").update(bytes).digest("hex").slice(0, 16) };
}

/** What differs between two contents, in words; undefined when nothing does. */
export function difference(found, expected) {
  const names = [...new Set([...Object.keys(found), ...Object.keys(expected)])].sort();
  const different = names.filter((name) => found[name] !== expected[name]);
  if (different.length === 0) return undefined;
  return different
    .map((n) => (expected[n] ? (found[n] ? `${n} differs` : `${n} is missing`) : `${n} is left`))
    .join(", ");
}

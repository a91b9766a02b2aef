import { UsageError } from "../core/index.js";
import { isPlainFileName } from "./fileName.js";
import { parsePartName, partName } from "./gguf/names.js";
import { type HubId, parseHubId } from "./hubCache.node.js";

/** A model on the Hub and, where one of its GGUF files is meant, that file's path or a part of its name ("Q8_0"). */
export interface HubFile extends HubId {
  file?: string;
}

/**
 * Parses `org/name[@revision]`, `org/name/FILE.gguf[@revision]` and `org/name:TYPE[@revision]`.
 * @throws UsageError for anything else
 */
export function parseHubFile(text: string): HubFile {
  const [, repository, path, type, revision = ""] =
    /^([^/:@]+\/[^/:@]+)(?:\/([^:@]+\.gguf)|:([\w.-]{1,64}))?(@.*)?$/i.exec(text) ?? [];
  const id = repository === undefined ? undefined : parseHubId(repository + revision);
  const file = path ?? type;
  if (id !== undefined && (path === undefined || isPlainPath(path))) return file === undefined ? id : { ...id, file };
  throw new UsageError(
    `there is no directory ${text}, and it is no Hub id of the form org/name[@revision] or org/name/FILE.gguf[@revision]`,
  );
}

/** A file of a repository or of one of its folders. */
const isPlainPath = (path: string): boolean => {
  const names = path.split("/");
  return names.length <= 3 && names.every((name) => isPlainFileName(name) && !name.includes(".."));
};

/** The GGUF models among the files of a repository, each by its first part; pictures and audio go with a model of text. */
export const ggufFilesAmong = (names: readonly string[]): string[] =>
  names.filter(
    (name) =>
      /\.gguf$/i.test(name) && isPlainPath(name) && (parsePartName(name)?.part ?? 0) === 0 && !/mmproj/i.test(name),
  );

/**
 * The one that is meant: by its path, or the only one whose name has `wanted` between signs.
 * @param wanted undefined takes the only one there is
 */
export function chooseGguf(names: readonly string[], wanted: string | undefined): string | undefined {
  const all = ggufFilesAmong(names);
  if (wanted === undefined) return all.length === 1 ? all[0] : undefined;
  if (/\.gguf$/i.test(wanted)) {
    const part = parsePartName(wanted);
    const first = part === undefined ? wanted : partName(part.stem, 0, part.count);
    return all.find((name) => name === first);
  }
  const signs = (text: string) => `.${text.toLowerCase().replaceAll(/[^a-z0-9_]+/g, ".")}.`;
  const found = all.filter((name) => signs(name).includes(signs(wanted)));
  return found.length === 1 ? found[0] : undefined;
}

/** All parts of a GGUF model by its first. */
export function ggufParts(first: string): string[] {
  const part = parsePartName(first);
  return part === undefined
    ? [first]
    : Array.from({ length: Math.min(part.count, 1024) }, (_, i) => partName(part.stem, i, part.count));
}

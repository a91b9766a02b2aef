import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, StorageError } from "../core/index.js";
import type { TaskFiles } from "./taskFiles.js";

/** Folders of files in one folder, all below it counted, at most. */
const maxFiles = 100_000;

/** The files of a folder; links are followed, as the Hub's cache consists of them. */
export function taskFolder(folder: string): TaskFiles {
  return {
    location: folder,
    async read(path, maxBytes) {
      const place = join(folder, path);
      const found = await stat(place).catch(() => undefined);
      if (found === undefined || !found.isFile()) return undefined;
      if (found.size > maxBytes) {
        throw new FormatError({ file: place, problem: `${found.size} bytes`, expected: `at most ${maxBytes}` });
      }
      try {
        return await readFile(place);
      } catch (cause) {
        const { code = "EIO", message } = cause as NodeJS.ErrnoException;
        throw new StorageError(message, { cause, code });
      }
    },
    async list(under) {
      const paths: string[] = [];
      const walk = async (at: string): Promise<void> => {
        const entries = await readdir(join(folder, at), { withFileTypes: true }).catch(() => []);
        for (const { name } of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
          if (name.startsWith(".")) continue;
          const path = at === "" ? name : `${at}/${name}`;
          // Links are files or folders, as what they lead to.
          const found = await stat(join(folder, path)).catch(() => undefined);
          if (found?.isDirectory() && path.split("/").length < 12) await walk(path);
          else if (found?.isFile() && paths.push(path) > maxFiles) {
            throw new FormatError({
              file: folder,
              problem: `more than ${maxFiles} files`,
              hint: "Name a smaller folder",
            });
          }
        }
      };
      await walk(under);
      return paths.sort();
    },
  };
}

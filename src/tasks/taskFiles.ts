import { UsageError } from "../core/index.js";

/** The files of tasks and their data: a folder, or a map in memory. Paths have forward slashes and stay inside. */
export interface TaskFiles {
  /** For messages. */
  readonly location: string;
  /** All of a file; undefined when there is none. @throws FormatError for a file of more than `maxBytes` */
  read(path: string, maxBytes: number): Promise<Uint8Array | undefined>;
  /** Paths of the files in a folder and all folders below, sorted; "" is the whole. None where there is no such folder. */
  list(folder: string): Promise<string[]>;
}

/** Files that are in memory, by their paths. */
export function memoryTaskFiles(location: string, files: ReadonlyMap<string, Uint8Array>): TaskFiles {
  return {
    location,
    read: async (path) => files.get(path),
    list: async (folder) =>
      Array.from(files.keys())
        .filter((path) => folder === "" || path.startsWith(`${folder}/`))
        .sort(),
  };
}

/**
 * The path of what a file names, from the folder of that file.
 * @throws UsageError for one that is not inside the whole
 */
export function pathBeside(file: string, named: string): string {
  const parts = file.split("/").slice(0, -1);
  const outside = () => new UsageError(`${JSON.stringify(named.slice(0, 200))} is not in the folder of the tasks`);
  if (named.startsWith("/") || /[\\\0:]/.test(named)) throw outside();
  for (const part of named.split("/")) {
    if (part === "..") {
      if (parts.pop() === undefined) throw outside();
    } else if (part !== "." && part !== "") parts.push(part);
  }
  return parts.join("/");
}

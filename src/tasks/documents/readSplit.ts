import { FormatError } from "../../core/index.js";
import { pathBeside, type TaskFiles } from "../taskFiles.js";
import type { Document } from "./document.js";
import { readJsonDocuments, readJsonLines } from "./jsonLines.js";
import { readParquet } from "./parquet.js";

const maxFileBytes = 512 * 2 ** 20;

const readers: Readonly<Record<string, (bytes: Uint8Array, file: string) => Promise<Document[]> | Document[]>> = {
  jsonl: readJsonLines,
  json: readJsonDocuments,
  parquet: readParquet,
};
const endings = Object.keys(readers);
const endingOf = (path: string) => path.slice(path.lastIndexOf(".") + 1).toLowerCase();

/** Where the rows of a task are. */
export interface DataPlace {
  /** Of the task's file: what its `data_files` are beside. */
  path: string;
  /** The same for messages. */
  file: string;
  task: string;
  datasetPath?: string;
  datasetName?: string;
  /** By split, or all of it. */
  dataFiles?: string | Readonly<Record<string, string>>;
}

/** The folders that hold task files and data. */
export interface DataFolders {
  tasks: TaskFiles;
  /** Data sets by their names; default: those beside the tasks. */
  data?: TaskFiles;
}

/**
 * The rows of one split: of the file that the task names, or else of `SPLIT.jsonl`, `SPLIT.parquet` or the numbered parts of a data
 * set of the Hub (`SPLIT-00000-of-00002.parquet`), in a folder called as the data set is, or as the task.
 * @throws FormatError, also where there is none
 */
export async function readSplit(folders: DataFolders, place: DataPlace, split: string): Promise<Document[]> {
  const { tasks, data = tasks } = folders;
  const { dataFiles, path, file } = place;
  if (dataFiles !== undefined) {
    const named =
      typeof dataFiles === "string" ? dataFiles : Object.hasOwn(dataFiles, split) ? dataFiles[split] : undefined;
    if (named === undefined) {
      const field = `dataset_kwargs.data_files.${split}`;
      throw new FormatError({ file, field, problem: "no such split", expected: Object.keys(dataFiles).join(", ") });
    }
    return readFile(tasks, pathBeside(path, named), file);
  }
  const tried = foldersOf(place);
  for (const folder of tried) {
    const paths = splitFiles(await data.list(folder), folder, split);
    if (paths.length === 0) continue;
    const parts: Document[][] = [];
    for (const path of paths) parts.push(await readFile(data, path, file));
    return parts.flat();
  }
  throw new FormatError({
    file,
    field: "dataset_path",
    problem: `no data of the split ${split} in ${data.location}`,
    expected: `${split}.jsonl or ${split}.parquet in ${tried.join(", ")}`,
    hint: "Put the files there, or name another folder (`taskData`)",
  });
}

/** From the most particular to the least. */
function foldersOf({ task, datasetPath, datasetName }: DataPlace): string[] {
  const sets = datasetPath === undefined ? [] : [datasetPath, datasetPath.split("/").at(-1)!];
  const named = datasetName === undefined ? [] : sets.map((set) => `${set}/${datasetName}`);
  const safe = (folder: string) =>
    folder !== "" && folder.split("/").every((part) => part !== "" && !/^\.|[\\:\0]/.test(part));
  return [...new Set([...named, task, ...sets])].filter(safe);
}

/** The files of a split among those of a folder and its folder `data`. */
function splitFiles(paths: readonly string[], folder: string, split: string): string[] {
  const names = new Map(paths.map((path) => [path.slice(folder.length + 1).replace(/^data\//, ""), path]));
  for (const ending of endings) {
    const whole = names.get(`${split}.${ending}`);
    if (whole !== undefined) return [whole];
  }
  // Of a data set of the Hub, all parts or none.
  const parts = Array.from(names).flatMap(([name, path]) => {
    const [, of, at, count] = /^(.+)-(\d{5})-of-(\d{5})\.parquet$/.exec(name) ?? [];
    return of === split ? [{ path, at: Number(at), count: Number(count) }] : [];
  });
  parts.sort((a, b) => a.at - b.at);
  return parts.length > 0 && parts.length === parts[0].count ? parts.map(({ path }) => path) : [];
}

async function readFile(files: TaskFiles, path: string, named: string): Promise<Document[]> {
  const place = `${files.location}/${path}`;
  const ending = endingOf(path);
  if (!Object.hasOwn(readers, ending)) {
    throw new FormatError({
      file: place,
      problem: `data in a file .${ending}`,
      expected: endings.map((each) => `.${each}`).join(", "),
    });
  }
  const bytes = await files.read(path, maxFileBytes);
  if (bytes === undefined)
    throw new FormatError({ file: place, problem: `there is no such file, which ${named} names` });
  const documents = await readers[ending](bytes, place);
  if (documents.length === 0) throw new FormatError({ file: place, problem: "there are no documents in it" });
  return documents;
}

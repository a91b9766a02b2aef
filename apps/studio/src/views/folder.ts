import type { ModelSource } from "../protocol.js";

/** The files directly inside a chosen folder. */
export function pickedFolder({ files }: HTMLInputElement): ModelSource | undefined {
  const all = Array.from(files ?? []);
  const inside = all.filter((file) => file.webkitRelativePath.split("/").length === 2);
  if (inside.length === 0) return undefined;
  return { folder: inside[0].webkitRelativePath.split("/")[0], files: inside };
}

/** A chosen GGUF file, or all its parts. */
export function pickedFile(input: HTMLInputElement): ModelSource | undefined {
  const files = Array.from(input.files ?? []);
  // So that the same file can be chosen again.
  input.value = "";
  return files.length === 0 ? undefined : { folder: nameOf(files), files };
}

/** Files without a folder go by the name of the GGUF file among them. */
const nameOf = (files: readonly File[]) => files.find(({ name }) => /\.gguf$/i.test(name))?.name ?? "dropped files";

/** The files of a dropped folder, or for files that were dropped by themselves. @throws Error for anything else */
export async function droppedFolder(transfer: DataTransfer): Promise<ModelSource> {
  const entries = Array.from(transfer.items, (item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const folder = entries.find((entry) => entry.isDirectory) as FileSystemDirectoryEntry | undefined;
  const found = folder === undefined ? entries : await entriesOf(folder);
  const files = await Promise.all(
    found.filter((entry) => entry.isFile).map((entry) => fileOf(entry as FileSystemFileEntry)),
  );
  if (files.length === 0) throw new Error("nothing to load was dropped; drop the folder of a model or a GGUF file");
  return { folder: folder?.name ?? nameOf(files), files };
}

async function entriesOf(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader();
  const all: FileSystemEntry[] = [];
  // A reader gives its entries in batches, the last of them empty.
  for (;;) {
    const batch = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (batch.length === 0) return all;
    all.push(...batch);
  }
}

const fileOf = (entry: FileSystemFileEntry) => new Promise<File>((resolve, reject) => entry.file(resolve, reject));

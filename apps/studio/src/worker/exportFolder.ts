/** Files that were built to be saved, in the private file system of the page. */
const folderName = "rarefy-exports";

/**
 * How long the browser may take to save a file: no browser says when it has. Ten megabytes in a second is a slow stick; it begins at once.
 * @param bytes of the file
 */
export const savingMs = (bytes: number): number => 5 * 60 * 1000 + bytes / 10_000;

export const exportFolder = async (): Promise<FileSystemDirectoryHandle> =>
  (await navigator.storage.getDirectory()).getDirectoryHandle(folderName, { create: true });

/** Removes files that must have been saved by now; one that is being written, here or by another page, stays. */
export async function removeSaved(): Promise<void> {
  const folder = await exportFolder();
  for await (const [name, handle] of (folder as unknown as Entries).entries()) {
    const { lastModified, size } = await handle.getFile();
    if (Date.now() - lastModified > savingMs(size)) await folder.removeEntry(name).catch(() => {});
  }
}

/** The part of the File System API that TypeScript's DOM library leaves out. */
type Entries = { entries(): AsyncIterable<[string, FileSystemFileHandle]> };

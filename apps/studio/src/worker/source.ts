import { blobFiles, blobSource, ggufFiles, type ModelFiles, openUrl, urlFiles } from "rarefy/io";
import type { ModelSource } from "../protocol.js";

/** The files of a model: a directory, or a GGUF file seen as one. */
export async function filesOf(source: ModelSource, signal: AbortSignal): Promise<ModelFiles> {
  if ("url" in source) {
    const { url } = source;
    if (!isGguf(new URL(url).pathname)) return urlFiles(url, { signal });
    return ggufFiles(url, (part) => openUrl(ofPart(url, part), { signal }));
  }
  const { folder, files } = source;
  const byName = new Map(files.map((file) => [file.name, file]));
  const [first, ...others] = files.map(({ name }) => name).filter(isFirstGguf);
  const other = files.some(({ name }) => name === "config.json" || name.endsWith(".safetensors"));
  if (first === undefined || other) return blobFiles(folder, byName);
  if (others.length > 0) throw new Error(`${folder}: there are several GGUF models (${first}, ${others[0]}); give one`);
  return ggufFiles(folder, async (part) => {
    const name = ofPart(first, part);
    const file = byName.get(name);
    return file && blobSource(`${folder}/${name}`, file);
  });
}

const isGguf = (name: string) => /\.gguf$/i.test(name);

/** The only file, or the first part. */
const isFirstGguf = (name: string) => isGguf(name) && !/-(?!00001)\d{5}-of-\d{5}\.gguf$/i.test(name);

/** Name or URL of another part of the model whose first part is `first`. */
const ofPart = (first: string, part: number) =>
  first.replace(/-00001(-of-\d{5}\.gguf)/i, (_, end: string) => `-${String(part + 1).padStart(5, "0")}${end}`);

import { FormatError, quote } from "../core/index.js";
import type { ByteSource, ModelFiles } from "./byteSource.js";
import { isPlainFileName } from "./fileName.js";
import { isJsonObject, readJsonFile } from "./json.js";
import { readSafetensorsHeader } from "./safetensors.js";
import type { StoredTensor } from "./safetensorsHeader.js";

export const singleFileName = "model.safetensors";
export const indexFileName = "model.safetensors.index.json";

/** A raw tensor and the file that holds it. */
export interface PlacedTensor {
  source: ByteSource;
  tensor: StoredTensor;
}

/**
 * Finds the raw tensors of a safetensors checkpoint, in one file or in shards; reads their headers.
 * @param sources every file opened is added, also when this fails
 * @returns undefined when there is neither a single file nor an index
 * @throws FormatError
 */
export async function placeTensors(
  files: ModelFiles,
  sources: ByteSource[],
): Promise<Map<string, PlacedTensor> | undefined> {
  const single = await files.open(singleFileName);
  if (single !== undefined) {
    sources.push(single);
    const { tensors } = await readSafetensorsHeader(single);
    return new Map(Array.from(tensors, ([name, tensor]) => [name, { source: single, tensor }]));
  }

  const index = await readJsonFile(files, indexFileName);
  if (index === undefined) return undefined;
  const placed = new Map<string, PlacedTensor>();
  for (const [shard, names] of shardsOf(index, `${files.location}/${indexFileName}`)) {
    const source = await files.open(shard);
    if (source === undefined) {
      throw new FormatError({
        file: `${files.location}/${shard}`,
        field: names[0],
        problem: `the shard is missing, ${indexFileName} names it`,
        hint: "The download may be incomplete",
      });
    }
    sources.push(source);
    const { tensors } = await readSafetensorsHeader(source);
    for (const name of names) {
      const tensor = tensors.get(name);
      if (tensor === undefined) {
        throw new FormatError({
          file: source.name,
          field: name,
          problem: `no such tensor, though ${indexFileName} places it here`,
        });
      }
      placed.set(name, { source, tensor });
    }
  }
  return placed;
}

/** The shards a parsed index names, each with its tensors, in order of first mention. @throws FormatError */
export function shardsOf(index: unknown, file: string): Map<string, string[]> {
  const weightMap = isJsonObject(index) ? index.weight_map : undefined;
  if (!isJsonObject(weightMap)) throw new FormatError({ file, field: "weight_map", problem: "not a JSON object" });
  const shards = new Map<string, string[]>();
  for (const [name, shard] of Object.entries(weightMap)) {
    if (typeof shard !== "string" || !isPlainFileName(shard) || !shard.endsWith(".safetensors")) {
      throw new FormatError({
        file,
        field: `weight_map.${name}`,
        problem: `shard ${quote(shard)}`,
        expected: "the plain name of a .safetensors file, without any path",
      });
    }
    const names = shards.get(shard);
    if (names === undefined) shards.set(shard, [name]);
    else names.push(name);
  }
  return shards;
}

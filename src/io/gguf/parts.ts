import { FormatError } from "../../core/index.js";
import type { ByteSource } from "../byteSource.js";
import { type GgufHeader, type GgufTensor, readGgufHeader } from "./header.js";

/** A tensor and the part that holds it. */
export interface PartTensor extends GgufTensor {
  source: ByteSource;
}

/** One GGUF file, or several that `llama-gguf-split` made of one. */
export interface GgufParts {
  /** Of the first part, which has all that is said of the model. */
  metadata: GgufHeader["metadata"];
  tensors: ReadonlyMap<string, PartTensor>;
}

/** More than any known model has. */
const maxParts = 1024;

/**
 * Reads the headers of a model in one file or in parts.
 * @param first the file, or its first part
 * @param openPart opens part 1, 2 … of `count`; undefined when it is not there. Who calls closes what it opened.
 * @throws FormatError, also when a part is missing or belongs to another file
 */
export async function readGgufParts(
  first: ByteSource,
  openPart: (part: number, count: number) => Promise<ByteSource | undefined>,
): Promise<GgufParts> {
  const { metadata, tensors: own } = await readGgufHeader(first);
  const count = countOf(metadata, "split.count", first.name) || 1;
  const tensors = new Map<string, PartTensor>();
  const take = (source: ByteSource, found: GgufHeader["tensors"]) => {
    for (const tensor of found.values()) {
      if (tensors.has(tensor.name))
        throw new FormatError({ file: source.name, field: tensor.name, problem: "another part has it too" });
      tensors.set(tensor.name, { ...tensor, source });
    }
  };
  checkNumber(metadata, 0, count, first.name);
  take(first, own);
  for (let part = 1; part < count; part++) {
    const source = await openPart(part, count);
    if (source === undefined) {
      throw new FormatError({
        file: first.name,
        field: "split.count",
        problem: `it is part 1 of ${count}, and part ${part + 1} is not beside it`,
        hint: `Download all parts into one directory under their own names, or join them with llama-gguf-split --merge`,
      });
    }
    const header = await readGgufHeader(source);
    checkNumber(header.metadata, part, count, source.name);
    take(source, header.tensors);
  }
  const all = countOf(metadata, "split.tensors.count", first.name);
  if (count > 1 && all !== undefined && all !== tensors.size) {
    throw new FormatError({
      file: first.name,
      field: "split.tensors.count",
      problem: `its ${count} parts have ${tensors.size} tensors`,
      expected: `${all}`,
    });
  }
  return { metadata, tensors };
}

function checkNumber(metadata: GgufHeader["metadata"], part: number, count: number, file: string): void {
  if (count === 1) return;
  const [number, total] = [countOf(metadata, "split.no", file), countOf(metadata, "split.count", file)];
  if (number === part && total === count) return;
  throw new FormatError({
    file,
    field: "split.no",
    problem: `it is part ${(number ?? 0) + 1} of ${total ?? 1}`,
    expected: `part ${part + 1} of ${count}`,
    hint: "Give the first part, with all others beside it under their own names",
  });
}

function countOf(metadata: GgufHeader["metadata"], key: string, file: string): number | undefined {
  const value = metadata.get(key);
  if (value === undefined) return undefined;
  const number = typeof value === "number" || typeof value === "bigint" ? Number(value) : Number.NaN;
  const most = key === "split.tensors.count" ? 1_000_000 : maxParts;
  if (Number.isInteger(number) && number >= 0 && number <= most) return number;
  throw new FormatError({ file, field: key, problem: "no such count", expected: `an integer from 0 to ${most}` });
}

import { dtypeBytes } from "../tensor/index.js";
import type { LogicalTensor } from "./encoding/index.js";
import { isJsonObject } from "./json.js";

const [head, embedding] = ["lm_head.weight", "model.embed_tokens.weight"];
const chunkBytes = 2 ** 22;

/** Of a `Checkpoint` what it takes to compare two tensors. */
interface Tensors {
  readonly config: unknown;
  readonly tensors: ReadonlyMap<string, LogicalTensor>;
  read(name: string, byteOffset: number, byteLength: number): Promise<Uint8Array>;
}

/**
 * Whether a checkpoint whose config ties the output head to the embedding holds a head with other values; the file's is
 * then the one to use, as transformers does since version 5. Fine-tunes and merged models come like that. Reads up to the
 * first difference.
 * @throws FormatError when the tensors cannot be read
 */
export async function hasOwnHead(checkpoint: Tensors): Promise<boolean> {
  const { config, tensors } = checkpoint;
  const [own, tied] = [tensors.get(head), tensors.get(embedding)];
  if (own === undefined || tied === undefined || !isJsonObject(config) || config.tie_word_embeddings === false)
    return false;
  if (own.dtype !== tied.dtype || own.shape.join() !== tied.shape.join() || own.encoding !== tied.encoding) return true;
  const [rows, cols = 1] = own.shape;
  const rowBytes = cols * dtypeBytes[own.dtype];
  const step = Math.max(1, Math.floor(chunkBytes / rowBytes));
  for (let row = 0; row < rows; row += step) {
    const length = Math.min(step, rows - row) * rowBytes;
    const [a, b] = await Promise.all([head, embedding].map((name) => checkpoint.read(name, row * rowBytes, length)));
    if (!a.every((byte, i) => byte === b[i])) return true;
  }
  return false;
}

import type { ModelConfig } from "../../arch/index.js";
import type { ByteSource, ModelFiles } from "../byteSource.js";
import { ggufPartName } from "./names.js";
import { readGgufParts } from "./parts.js";
import { type GgufTensors, openGgufTensors } from "./tensors.js";

/**
 * The tensors of a model whose weights lie under `ggufFileName`.
 * @param first that file
 * @param sources receives the further parts, which who calls closes
 * @throws FormatError
 */
export async function openGguf(
  files: ModelFiles,
  first: ByteSource,
  sources: ByteSource[],
  config: ModelConfig,
): Promise<GgufTensors> {
  const parts = await readGgufParts(first, async (part, count) => {
    const source = await files.open(ggufPartName(part, count));
    if (source !== undefined) sources.push(source);
    return source;
  });
  return openGgufTensors(parts, config);
}

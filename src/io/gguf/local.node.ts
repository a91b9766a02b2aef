import { dirname } from "node:path";
import { UsageError } from "../../core/index.js";
import type { LocalModelFiles } from "../byteSource.js";
import { openFile } from "../file.node.js";
import { ggufFileName, ggufFiles } from "./files.js";

/** A local GGUF file seen as a model directory. @throws FormatError, UsageError when there is no such file */
export async function localGgufFiles(path: string): Promise<LocalModelFiles> {
  const files = await ggufFiles(path, async () => {
    const source = await openFile(path);
    if (source === undefined) throw new UsageError(`there is no file ${path}`);
    return source;
  });
  return {
    ...files,
    directory: dirname(path),
    pathOf: (name) => (name === ggufFileName ? path : undefined),
  };
}

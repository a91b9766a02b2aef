import { basename, dirname, join } from "node:path";
import { UsageError } from "../../core/index.js";
import type { LocalModelFiles } from "../byteSource.js";
import { openFile } from "../file.node.js";
import { ggufFiles } from "./files.js";
import { ggufFileName, parsePartName, partName } from "./names.js";

/**
 * A local GGUF file seen as a model directory; any part of a model in parts stands for all of it.
 * @throws FormatError, UsageError when there is no such file
 */
export async function localGgufFiles(path: string, location = path): Promise<LocalModelFiles> {
  const directory = dirname(path);
  const named = parsePartName(basename(path));
  const pathOfPart = (part: number) =>
    named === undefined ? path : join(directory, partName(named.stem, part, named.count));
  const files = await ggufFiles(location, async (part) => {
    const source = await openFile(pathOfPart(part));
    if (source === undefined && part === 0) throw new UsageError(`there is no file ${pathOfPart(0)}`);
    return source;
  });
  return {
    ...files,
    directory,
    pathOf(name) {
      const part = name === ggufFileName ? 0 : parsePartName(name)?.part;
      return part === undefined ? undefined : pathOfPart(part);
    },
  };
}

import { FormatError } from "../core/index.js";
import type { ByteSource } from "./byteSource.js";
import { refuseMistaken, tellingBytes } from "./mistakenFile.js";
import { maxHeaderBytes, parseSafetensorsHeader, type SafetensorsHeader } from "./safetensorsHeader.js";

/**
 * Reads and checks the header of a safetensors file: 8 bytes of length (little-endian), that many bytes of JSON, tensor
 * bytes to the end of the file. Nothing but the header is read.
 * @throws FormatError naming the file, the tensor and the reason
 */
export async function readSafetensorsHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const file = source.name;
  refuseMistaken(await source.read(0, Math.min(tellingBytes, source.byteLength)), file);
  if (source.byteLength < 8) {
    throw new FormatError({
      file,
      problem: `${source.byteLength} bytes are too few for a safetensors file`,
      expected: "at least 8",
    });
  }
  const prefix = await source.read(0, 8);
  const headerLength = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  const limit = Math.min(maxHeaderBytes, source.byteLength - 8);
  if (headerLength > BigInt(limit)) {
    throw new FormatError({
      file,
      problem: `a header of ${headerLength} bytes in a file of ${source.byteLength}`,
      expected: `at most ${limit}`,
      hint: "The file is cut short or is not a safetensors file",
    });
  }
  const dataStart = 8 + Number(headerLength);
  const header = await source.read(8, Number(headerLength));
  return parseSafetensorsHeader(header, dataStart, source.byteLength, file);
}

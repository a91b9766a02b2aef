import { FormatError, UsageError } from "../core/index.js";
import type { ByteSource } from "./byteSource.js";

/**
 * Checks a read before anything is allocated for it.
 * @returns where the bytes go: `into`, or a new array.
 */
export function targetOf(
  source: Pick<ByteSource, "name" | "byteLength">,
  offset: number,
  length: number,
  into: Uint8Array | undefined,
): Uint8Array {
  if (!isCount(offset) || !isCount(length) || offset + length > source.byteLength) {
    throw new FormatError({
      file: source.name,
      problem: `bytes ${offset} … ${offset + length} asked for, the file has ${source.byteLength}`,
      hint: "The file may be cut short: fetch it again",
    });
  }
  if (into !== undefined && into.byteLength !== length) {
    throw new UsageError(`read of ${length} bytes into an array of ${into.byteLength}`);
  }
  return into ?? new Uint8Array(length);
}

const isCount = (n: number) => Number.isSafeInteger(n) && n >= 0;

/** What every source throws when fewer bytes arrive than the source said it had. */
export function endsEarly(name: string, expected: number, got: number): FormatError {
  return new FormatError({
    file: name,
    problem: `the data ends ${expected - got} bytes early`,
    expected: `${expected} bytes`,
    hint: "The file changed or was cut while it was read",
  });
}

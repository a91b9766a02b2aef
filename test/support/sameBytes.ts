import { expect } from "vitest";

/**
 * Typed arrays of one kind with the same bytes are equal: `toEqual` by itself takes microseconds for each element, which for the
 * weights of a model are seconds. About all others it decides as it always does.
 */
function sameBytes(a: unknown, b: unknown): true | undefined {
  if (!ArrayBuffer.isView(a) || !ArrayBuffer.isView(b) || a.constructor !== b.constructor) return undefined;
  const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView) => Buffer.from(buffer, byteOffset, byteLength);
  return bytesOf(a).equals(bytesOf(b)) ? true : undefined;
}

expect.addEqualityTesters([sameBytes]);

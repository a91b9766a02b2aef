import { expect } from "vitest";

type Numbers = Float32Array | Float64Array | Uint8Array | Int8Array | Uint16Array | Uint32Array | Int32Array;

const bytesOf = ({ buffer, byteOffset, byteLength }: Numbers) => Buffer.from(buffer, byteOffset, byteLength);

/** `toEqual` for many numbers: it compares bytes, and goes over the elements only to say which of them differ. */
export function expectSameNumbers(actual: Numbers, expected: Numbers): void {
  if (actual.constructor === expected.constructor && bytesOf(actual).equals(bytesOf(expected))) return;
  expect(actual).toEqual(expected);
}

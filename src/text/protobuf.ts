import { FormatError } from "../core/index.js";
import { decodeUtf8 } from "../io/internal.js";

/** One field of a protocol buffer message: a number (varint), four bytes, eight bytes, or bytes of any length. */
export interface ProtobufField {
  number: number;
  /** Of a varint; exact up to 2⁵³. */
  value?: number;
  bytes?: Uint8Array;
}

const wireTypes = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

/**
 * The fields of a message, in their order (https://protobuf.dev/programming-guides/encoding).
 * @param file for messages
 * @throws FormatError for a message that is cut off or not one
 */
export function* protobufFields(message: Uint8Array, file: string): Generator<ProtobufField, void, undefined> {
  let at = 0;
  const fail = () =>
    new FormatError({ file, problem: `not a protocol buffer message (at byte ${at} of ${message.length})` });
  const varint = (): number => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = message[at++];
      if (byte === undefined || factor > 2 ** 63) throw fail();
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  const take = (length: number): Uint8Array => {
    if (length > message.length - at) throw fail();
    at += length;
    return message.subarray(at - length, at);
  };
  while (at < message.length) {
    const tag = varint();
    const number = Math.floor(tag / 8);
    const type = tag % 8;
    if (number === 0) throw fail();
    if (type === wireTypes.varint) yield { number, value: varint() };
    else if (type === wireTypes.bytes) yield { number, bytes: take(varint()) };
    else if (type === wireTypes.fixed32) yield { number, bytes: take(4) };
    else if (type === wireTypes.fixed64) yield { number, bytes: take(8) };
    else throw fail();
  }
}

export const protobufText = (bytes: Uint8Array | undefined, file: string): string =>
  decodeUtf8(bytes ?? new Uint8Array(), file);

/** A `float` field. */
export const protobufFloat = (bytes: Uint8Array | undefined): number =>
  bytes?.length === 4 ? new DataView(bytes.buffer, bytes.byteOffset).getFloat32(0, true) : Number.NaN;

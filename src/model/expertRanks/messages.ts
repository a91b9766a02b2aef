import * as z from "zod/mini";
import { FormatError } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";

/** Rows that are sent to a rank, and which of its experts each is for. */
export interface ExpertWork {
  layer: number;
  /** f32 [rows, width]: every row once, however many experts of the rank it is for. */
  x: Float32Array;
  rows: number;
  /** Row of `x` and expert, counted from the rank's first, of every slot; slots of one expert lie together. */
  slotRows: Uint32Array;
  slotExperts: Uint32Array;
  /** Activation thresholds by the steps of an expert: of a linear step one for each map, of a gate one; null is none. */
  thresholds?: readonly (readonly number[] | null)[];
}

/** What a rank must have in common with the model that sends rows to it. */
export interface RankModel {
  layers: number;
  hiddenSize: number;
  experts: number;
}

/** What is sent between ranks: one frame each, a JSON header in front of the numbers. */
export type ToRank = { kind: "work"; id: number } & ExpertWork;
export type FromRank =
  | { kind: "ready"; rank: number; ranks: number; model: RankModel }
  /** f32 [slots, width], in the order of the slots. */
  | { kind: "result"; id: number; y: Float32Array }
  /** Of a work, or without `id` of the rank as a whole. */
  | { kind: "failure"; id?: number; message: string };

const count = z.int().check(z.gte(0), z.lte(0xffffffff));
const workHeader = z.strictObject({
  kind: z.literal("work"),
  id: count,
  layer: count,
  rows: count,
  slots: count,
  thresholds: z.optional(z.array(z.nullable(z.array(z.number().check(z.gte(0)))))),
});
const answerHeader = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("ready"),
    rank: count,
    ranks: count,
    model: z.strictObject({ layers: count, hiddenSize: count, experts: count }),
  }),
  z.strictObject({ kind: z.literal("result"), id: count }),
  z.strictObject({ kind: z.literal("failure"), id: z.optional(count), message: z.string() }),
]);

/** Stands in messages of errors where a file would. */
const place = "message between expert ranks";

export const encodeWork = ({ x, slotRows, slotExperts, ...header }: ToRank): Uint8Array =>
  frame({ ...header, slots: slotRows.length }, [slotRows, slotExperts, x]);

/** @throws FormatError for what is no work for a rank whose layers have this width */
export function decodeWork(bytes: Uint8Array, width: number): ToRank {
  const { header, words } = unframe(bytes);
  const { slots, ...rest } = checkSchema(workHeader, header, place);
  const expected = 2 * slots + rest.rows * width;
  if (words.length !== expected) throw wrong(`${words.length} numbers`, `${expected}`);
  const slotRows = words.subarray(0, slots);
  const slotExperts = words.subarray(slots, 2 * slots);
  if (slotRows.some((row) => row >= rest.rows)) throw wrong("a slot of a row that was not sent", `${rest.rows} rows`);
  return { ...rest, slotRows, slotExperts, x: floats(words.subarray(2 * slots)) };
}

export const encodeAnswer = (answer: FromRank): Uint8Array => {
  if (answer.kind !== "result") return frame(answer, []);
  const { y, ...header } = answer;
  return frame(header, [y]);
};

/** @throws FormatError for what is no answer of a rank */
export function decodeAnswer(bytes: Uint8Array): FromRank {
  const { header, words } = unframe(bytes);
  const answer = checkSchema(answerHeader, header, place);
  return answer.kind === "result" ? { ...answer, y: floats(words) } : answer;
}

const floats = (words: Uint32Array): Float32Array => new Float32Array(words.buffer, words.byteOffset, words.length);

/** u32 length of the header, the header filled up to whole words with spaces, then words. Little-endian, as the hosts are. */
function frame(header: object, arrays: readonly (Uint32Array | Float32Array)[]): Uint8Array {
  const json = JSON.stringify(header);
  const plain = new TextEncoder().encode(json);
  const headerBytes = Math.ceil(plain.length / 4) * 4;
  const bytes = new Uint8Array(4 + headerBytes + arrays.reduce((sum, { byteLength }) => sum + byteLength, 0));
  new DataView(bytes.buffer).setUint32(0, headerBytes, true);
  bytes.fill(0x20, 4, 4 + headerBytes).set(plain, 4);
  let at = 4 + headerBytes;
  for (const array of arrays) {
    bytes.set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), at);
    at += array.byteLength;
  }
  return bytes;
}

function unframe(bytes: Uint8Array): { header: unknown; words: Uint32Array } {
  const headerBytes = bytes.length < 4 ? 0 : new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  if (bytes.length % 4 !== 0 || headerBytes % 4 !== 0 || headerBytes > bytes.length - 4) {
    throw wrong(`${bytes.length} bytes with a header of ${headerBytes}`, "whole words");
  }
  const text = new TextDecoder().decode(bytes.subarray(4, 4 + headerBytes));
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch {
    throw wrong("a header that is no JSON", "a JSON object");
  }
  // The numbers lie in the frame, or in a copy where it begins between words: a part of a larger buffer may.
  const { buffer, byteOffset } = bytes.byteOffset % 4 === 0 ? bytes : Uint8Array.from(bytes);
  return { header, words: new Uint32Array(buffer, byteOffset + 4 + headerBytes, (bytes.length - 4 - headerBytes) / 4) };
}

const wrong = (problem: string, expected: string) => new FormatError({ file: place, problem, expected });

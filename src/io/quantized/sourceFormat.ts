import * as z from "zod/mini";
import { FormatError } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";
import type { TensorInfo } from "../../tensor/index.js";
import type { EncodedTensor } from "../encoding/index.js";
import type { MatrixParts } from "./matrixParts.js";

/** What a config.json says of how its weights are quantised: `quantization_config`, parsed and not yet checked. */
export type QuantizationRecord = Readonly<Record<string, unknown>>;

/** A way in which other tools store quantised weights. */
export interface SourceFormat {
  /** What it is called: "GPTQ". */
  readonly title: string;
  /**
   * Reads what the matrices do not tell by themselves.
   * @param file for messages
   * @throws FormatError for a kind that is not read
   */
  reader(record: QuantizationRecord, file: string): SourceReader;
}

/** How the matrices of one model are found and read. */
export interface SourceReader {
  /** In words: "4 bits in groups of 128". */
  readonly details: string;
  /**
   * What the names of all parts of a matrix begin with, seen from one part that each has; undefined for other tensors. What
   * the model keeps as plain values (`ignore`, `modules_to_not_convert`) has no such part.
   */
  stemOf(name: string, info: TensorInfo): string | undefined;
  /**
   * @returns the matrix as a model knows it; undefined where it lies there as plain values
   * @throws FormatError for a part that is missing or does not fit the others
   */
  open(parts: MatrixParts): Promise<EncodedTensor | undefined>;
}

const recordField = "quantization_config";

/** @throws FormatError naming the field of the record */
export const checkRecord = <T>(schema: z.core.$ZodType<T>, record: QuantizationRecord, file: string): T =>
  checkSchema(z.object({ [recordField]: schema }), { [recordField]: record }, file)[recordField] as T;

/** A kind of a format that is not read. */
export const unread = (file: string, field: string, problem: string, expected: string): FormatError =>
  new FormatError({
    file,
    field: `${recordField}.${field}`,
    problem,
    expected,
    hint: "Take the model in a layout that is read, or the original one: rarefy quantises it while loading",
  });

/** Entries that share a scale, in words. @param size −1 for a whole row */
export const groupsInWords = (bits: number, size: number): string =>
  `${bits} bits, ${size < 0 ? "a scale a row" : `groups of ${size}`}`;

/** The stem of a name that ends like this. */
export const stemBefore = (name: string, suffix: string): string | undefined =>
  name.endsWith(suffix) ? name.slice(0, -suffix.length) : undefined;

/** Inputs that share a scale, as GPTQ and AWQ record it; −1: all of a row. */
export const groupSize = z._default(z.union([z.literal(-1), z.int().check(z.gte(1), z.lte(2 ** 20))]), 128);

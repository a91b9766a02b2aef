import * as z from "zod/mini";
import type { ModelSpec } from "../../arch/index.js";
import { FormatError, UsageError } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";
import type { ByteSource, Checkpoint } from "../../io/index.js";
import { weightFormats } from "../../pack/index.js";
import { describeBundles } from "./bundles.js";
import { type OffloadLayout, type OffloadShape, offloadLayouts } from "./placement.js";

/** Says how `offloadBytesName` is laid out: where everything lies follows from that and the model. */
export const offloadDescriptionName = "offload.json";
/** Bundles of weights, packed. */
export const offloadBytesName = "offload.bin";

const description = z.strictObject({
  /** Version of this file. */
  offload: z.literal(1),
  weights: z.enum(Object.keys(weightFormats) as (keyof typeof weightFormats)[]),
  layout: z.enum(offloadLayouts as [OffloadLayout, ...OffloadLayout[]]),
  bundled: z.boolean(),
  /** Of the file of bundles. */
  byteLength: z.int().check(z.minimum(0)),
  /** Whether uses were counted on a text. */
  counted: z.boolean(),
});

/** What `offload.json` holds. */
export type OffloadDescription = z.infer<typeof description>;

/** The bytes of `offload.json`. */
export const serializeOffload = (value: OffloadDescription): Uint8Array =>
  new TextEncoder().encode(`${JSON.stringify(description.parse(value), undefined, 2)}\n`);

/** Bundles of a model, opened for reading. */
export interface OffloadedFile {
  readonly shape: OffloadShape;
  /** Whether uses were counted on a text. */
  readonly counted: boolean;
  readonly source: ByteSource;
}

/**
 * Opens the bundles beside a model; undefined where there are none.
 * @throws FormatError for a description or a file that does not fit the model
 */
export async function openOffloaded(
  checkpoint: Pick<Checkpoint, "location" | "files" | "readJson">,
  spec: ModelSpec,
): Promise<OffloadedFile | undefined> {
  const { location, files } = checkpoint;
  const raw = await checkpoint.readJson(offloadDescriptionName);
  if (raw === undefined) return undefined;
  const file = `${location}/${offloadDescriptionName}`;
  const hint = "Make it again with rarefy offload";
  const read = checkSchema(description, raw, file, hint);
  const { weights, layout, bundled, counted } = read;
  const shape = { weights, layout, bundled };
  let byteLength: number;
  try {
    ({ byteLength } = describeBundles(spec, shape));
  } catch (cause) {
    if (!(cause instanceof UsageError)) throw cause;
    throw new FormatError({ file, field: "layout", problem: cause.message, hint });
  }
  const source = await files.open(offloadBytesName);
  if (source === undefined) throw new FormatError({ file: location, problem: `there is no ${offloadBytesName}`, hint });
  if (source.byteLength !== byteLength || read.byteLength !== byteLength) {
    await source.close();
    throw new FormatError({
      file: `${location}/${offloadBytesName}`,
      problem: `${source.byteLength} bytes (${read.byteLength} by ${offloadDescriptionName})`,
      expected: `${byteLength} bytes for this model`,
      hint,
    });
  }
  return { shape, counted, source };
}

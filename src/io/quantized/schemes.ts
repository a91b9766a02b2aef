import * as z from "zod/mini";
import { elementCount, type TensorInfo } from "../../tensor/index.js";
import type { MatrixParts } from "./matrixParts.js";

const size = z.int().check(z.gte(1), z.lte(2 ** 31));

/** `weights` of a group of compressed-tensors. */
export const weightArguments = z.object({
  num_bits: z.int().check(z.gte(1), z.lte(16)),
  type: z._default(z.enum(["int", "float"]), "int"),
  symmetric: z._default(z.boolean(), true),
  strategy: z.nullish(z.string()),
  group_size: z.nullish(z.union([z.literal(-1), size])),
  block_structure: z.nullish(z.array(size).check(z.length(2))),
});

/** How the weights of one group of modules are quantised. */
export type Scheme = z.output<typeof weightArguments>;

/** Rows and columns that share a scale. */
export type Tile = readonly [tileRows: number, tileCols: number];

/**
 * The scheme whose scales are as many as there are.
 * @param stored scales, [tiles down, tiles across]
 * @throws FormatError where there is none
 */
export function schemeOf(
  parts: MatrixParts,
  shape: Tile,
  stored: Pick<TensorInfo, "dtype" | "shape">,
  schemes: readonly Scheme[],
  fits: (scheme: Scheme) => boolean,
): { scheme: Scheme; tile: Tile } {
  for (const scheme of schemes) {
    const tile = fits(scheme) ? tileOf(scheme, shape) : undefined;
    if (tile === undefined) continue;
    const tiles = [Math.ceil(shape[0] / tile[0]), Math.ceil(shape[1] / tile[1])];
    const same = stored.shape.join() === tiles.join();
    if (same || (elementCount(tiles) === elementCount(stored.shape) && tiles[1] === 1)) return { scheme, tile };
  }
  throw parts.fail(
    `weights [${shape.join(", ")}] and ${stored.dtype} scales [${stored.shape.join(", ")}] fit no scheme of the model`,
    "bits, strategy and group size of one of quantization_config.config_groups",
  );
}

/** Undefined for a strategy that is not one of weights. */
function tileOf({ strategy, group_size: group, block_structure: block }: Scheme, [rows, cols]: Tile): Tile | undefined {
  const named = strategy ?? (group == null ? "tensor" : group < 0 ? "channel" : "group");
  switch (named) {
    case "tensor":
      return [rows, cols];
    case "channel":
      return [1, cols];
    case "group":
    case "tensor_group":
      return group == null || group < 0 ? undefined : [1, Math.min(group, cols)];
    case "block":
      return block == null ? undefined : [block[0], block[1]];
    default:
      return undefined;
  }
}

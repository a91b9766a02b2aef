import type { ModelSpec } from "../../arch/index.js";
import { rowBytes, weightFormats } from "../../pack/index.js";
import { packedMatrixBytes } from "../footprint.js";
import type { LoadModelOptions } from "../loadOptions.js";
import type { TensorSource } from "../tensorRows.js";
import { type OffloadStream, placeOffload } from "./placement.js";

/** Vectors, tables of places and what rounding up to whole lines takes. */
const besides = { share: 1.02, bytes: 1 << 20 };

/**
 * Whether all of a ReLU model's weights fit into the bound and stay: then only the rows of `up` are held one by one, and `down` is a matrix
 * like others, whose columns are skipped.
 */
export function holdsAllNeurons(
  source: Pick<TensorSource, "tensors">,
  spec: ModelSpec,
  { offload, weights }: Pick<LoadModelOptions, "weights"> & Required<Pick<LoadModelOptions, "offload">>,
): boolean {
  const { file, options = {}, predictors } = offload;
  const { residentBytes = Number.POSITIVE_INFINITY, window, predict } = options;
  if (file.shape.layout !== "neurons" || predictors !== undefined || predict !== undefined || window !== undefined)
    return false;
  // A prompt has `up` of a layer once more, as a matrix.
  const whole = ({ mlp: { up } }: OffloadStream) => (up ? weightFormats[weights].byteLength(up.rows, up.cols) : 0);
  const rows = ({ mlp: { up } }: OffloadStream) => (up ? up.rows * (rowBytes(weights, up.cols) + 64) : 0);
  const { streams } = placeOffload(spec, file.shape);
  if (streams.some(({ mlp }) => mlp.up === undefined)) return false;
  const needed = streams.reduce(
    (sum, stream) => sum + rows(stream) - whole(stream),
    packedMatrixBytes(source, spec, weights).loaded + Math.max(...streams.map(whole)),
  );
  return residentBytes >= needed * besides.share + besides.bytes;
}

import type { ActivationSparsity } from "../io/index.js";
import { type DecoderLayout, type Projection, projections } from "../model/index.js";
import { type WeightFormatId, weightFormats } from "../pack/index.js";

/**
 * Weight bytes that thresholds are expected to save per decoded token: for every projection, the columns of its expected
 * share of zero inputs. Scales that a wholly skipped group of inputs would save are left out, so it is a lower bound.
 */
export function expectedBytesSaved(
  layout: DecoderLayout,
  weights: WeightFormatId,
  { method, layers }: ActivationSparsity,
): number {
  let saved = 0;
  for (const [l, block] of layout.blocks.entries()) {
    // Experts are of one shape: those that work for a token are as many of the first.
    const [{ gateUp, down }] = block.mlps;
    const linears = [...block.qkv, block.output, ...gateUp, down];
    const experts = block.router?.perToken ?? 1;
    for (const [p, projection] of projections.entries()) {
      const [rows, cols] = linears[p].weight.shape;
      const products = mlpProjections.includes(projection) ? experts : 1;
      const columns = products * cols * expectedSparsity(projection, layers[l], method);
      saved += columns * weightFormats[weights].columnBytes(rows);
    }
  }
  return saved;
}

const mlpProjections: readonly Projection[] = ["gate_proj", "up_proj", "down_proj"];

/** A gate threshold makes zeros in front of `down_proj` alone. */
function expectedSparsity(
  projection: Projection,
  layer: ActivationSparsity["layers"][number],
  method: ActivationSparsity["method"],
): number {
  if (method === "cats" && projection === "down_proj") return layer.gate?.sparsity ?? 0;
  return layer.maps[projection]?.sparsity ?? 0;
}

import type { ModelSpec } from "../../arch/index.js";
import { placeExperts } from "./expertPlacement.js";
import { type OffloadShape, placeOffload } from "./placement.js";

/** Units of one kind of a layer, and the bytes of one. */
export interface UnitKind {
  readonly of: string;
  readonly units: number;
  readonly bytes: number;
}

/**
 * How large the file of bundles is, and what is one read of it.
 * @throws UsageError for a model that cannot be offloaded so
 */
export function describeBundles(
  spec: ModelSpec,
  shape: OffloadShape,
): { byteLength: number; kinds: readonly UnitKind[] } {
  if (shape.layout === "experts") {
    const { streams, byteLength } = placeExperts(spec, shape.weights);
    return {
      byteLength,
      kinds: distinct(streams.map(({ mixture, bytes }) => ({ of: "experts", units: mixture.experts.length, bytes }))),
    };
  }
  const { streams, byteLength } = placeOffload(spec, shape);
  const bytesOf = (parts: (typeof streams)[number]["parts"]) => parts.reduce((sum, { bytes }) => sum + bytes, 0);
  return { byteLength, kinds: distinct(streams.map(({ of, units, parts }) => ({ of, units, bytes: bytesOf(parts) }))) };
}

const distinct = (kinds: readonly UnitKind[]): UnitKind[] => [
  ...new Map(kinds.map((kind) => [kind.of, kind])).values(),
];

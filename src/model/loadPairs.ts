import type { Matrix, Region, RowSource } from "../kernels/index.js";
import { weightFormats } from "../pack/index.js";
import type { Adaptation } from "./adaptations.js";
import type { PairRouting, StackPairs } from "./adapterPairs.js";
import { denseSource } from "./denseSource.js";
import { type ExpertGates, gateWidth } from "./expertGates.js";
import { padTo4 } from "./footprint.js";

/** Pairs are small, and what they add is smaller. */
const format = "f32";

type PairAdaptation = Extract<Adaptation, { kind: "lora" | "molora" }>;

export const isPairs = (adaptation: Adaptation): adaptation is PairAdaptation =>
  adaptation.kind === "lora" || adaptation.kind === "molora";

/** A pair, or the pairs of all experts one below the other: a [experts · rank, cols], b [experts, rows, rank]. */
function stacked(adaptation: PairAdaptation) {
  if (adaptation.kind === "lora") return { ...adaptation.pair, experts: 1 };
  return adaptation.pairs;
}

/** Bytes that `loadPairs` loads for one of them at most. */
export function pairBytes(adaptation: PairAdaptation): number {
  const { experts, rank, rows, cols } = stacked(adaptation);
  const { byteLength } = weightFormats[format];
  const inner = padTo4(experts * rank);
  const pair = byteLength(inner, cols) + byteLength(rows, inner);
  if (adaptation.kind === "lora") return pair;
  const width = gateWidth(experts);
  return pair + byteLength(width, cols) + byteLength(inner, width) + 4 * width;
}

/** Pairs of one step: where the outputs of each begin. */
export type PlacedPairs = PairAdaptation & { rowStart: number; name: string };

/** Loads the pairs of a step. @param gates of mixtures, whose ranks are all the same */
export async function loadPairs(
  region: Region,
  gates: ExpertGates | undefined,
  placed: readonly PlacedPairs[],
): Promise<StackPairs> {
  const parts: StackPairs["pairs"][number][] = [];
  const rights: RowSource[] = [];
  let rankStart = 0;
  for (const one of placed) {
    const { rowStart, name } = one;
    const { a, b, experts, rank, rows, cols, scale } = stacked(one);
    const inner = experts * rank;
    const padded = padTo4(inner);
    // Products are made in fours: what is missing is zeros.
    const right = new Float32Array(padded * cols);
    right.set(a);
    const left = new Float32Array(rows * padded);
    for (let e = 0; e < experts; e++) {
      for (let r = 0; r < rows; r++) {
        for (let k = 0; k < rank; k++) left[r * padded + e * rank + k] = scale * b[(e * rows + r) * rank + k];
      }
    }
    rights.push(denseSource(`${name} lora_A`, padded, cols, right));
    const matrix = await load(region, [denseSource(`${name} lora_B`, rows, padded, left)]);
    parts.push({ rowStart, rows, left: matrix, rankStart });
    rankStart += padded;
  }
  const right = await load(region, rights);
  if (gates === undefined) return { pairs: parts, right };
  return { pairs: parts, right, routing: await loadRouting(region, gates, placed) };
}

async function loadRouting(region: Region, gates: ExpertGates, placed: readonly PlacedPairs[]): Promise<PairRouting> {
  const { width } = gates;
  const routers = placed.map((one) => {
    if (one.kind !== "molora") throw new Error("a pair without a router among others with one");
    const { router, cols } = one.pairs;
    const rows = new Float32Array(width * cols);
    rows.set(router);
    return denseSource(`${one.name} router`, width, cols, rows);
  });
  const { experts, rank } = stacked(placed[0]);
  const padded = padTo4(experts * rank);
  const spread = new Float32Array(padded * width);
  for (let row = 0; row < experts * rank; row++) spread[row * width + Math.floor(row / rank)] = 1;
  return {
    gates,
    router: await load(region, routers),
    bias: region.loadVector(gates.bias(placed.length)),
    spread: await load(region, [denseSource("spread", padded, width, spread)]),
  };
}

const load = (region: Region, sources: readonly RowSource[]): Promise<Matrix> => region.loadMatrix(sources, format, {});

import { costsOf, readersOf } from "../arch/index.js";
import { blockSparsity } from "../compress/index.js";
import { keptInputs } from "../kernels/internal.js";
import type { ActivationThresholds, InputShare, Model, Tap } from "../model/index.js";
import { inputChoice, rolesBehindZeros } from "../model/internal.js";

/** The rows of x, f32 [rows, cols], that are wanted. */
function rowsOf(x: Float32Array, cols: number, wanted: (row: number) => boolean): Float32Array {
  const rows = Array.from({ length: x.length / cols }, (_, row) => row).filter(wanted);
  const out = new Float32Array(rows.length * cols);
  for (const [r, row] of rows.entries()) out.set(x.subarray(row * cols, (row + 1) * cols), r * cols);
  return out;
}

/** Values f32 [rows, cols] with those as 0 that do not count in their row. */
function chosen(values: Float32Array, cols: number, inputs: InputShare): Float32Array {
  const choice = inputChoice(inputs, cols);
  const out = new Float32Array(values.length);
  for (let at = 0; at < values.length; at += cols) out.set(keptInputs(values.subarray(at, at + cols), choice), at);
  return out;
}

/**
 * Counts what thresholds drop while a model runs: hand `tap` to its forward calls, then take `sparsity`.
 *
 * Backends count skipped inputs themselves, but only in matrix-vector products, that is, in decoding.
 */
export class RealisedSparsity {
  readonly tap: Tap;
  readonly #model: Model;
  readonly #seen = new Map<string, { inputs: number; dropped: number }>();

  /** @param firstRow first row of every activation to which the thresholds apply; to be set anew for every pass of several */
  constructor(
    model: Model,
    thresholds: ActivationThresholds | "exact",
    public firstRow: number,
  ) {
    this.#model = model;
    const { spec } = model.config;
    const behindZeros = thresholds === "exact" ? rolesBehindZeros(spec) : undefined;
    const readers = spec.blocks.map((block, layer) => {
      const counted = (role: string) => behindZeros === undefined || behindZeros[layer].has(role);
      return new Map(Array.from(readersOf(block), ([site, roles]) => [site, roles.filter(counted)]));
    });
    const { maps = [], inputs = undefined } = thresholds === "exact" ? {} : thresholds;
    const read = readers.flatMap((sites) => [...sites].flatMap(([site, roles]) => (roles.length > 0 ? [site] : [])));
    this.tap = {
      sites: [...new Set(read)],
      onActivation: async (layer, site, activation, slots) => {
        const first = this.firstRow - (slots?.firstRow ?? 0);
        const ofSlots = slots?.of === "slots";
        if (!ofSlots && first >= activation.rows) return;
        const values = ofSlots
          ? rowsOf(await model.backend.read(activation), activation.cols, (slot) => slots.rows[slot] >= first)
          : await model.backend.read(activation.rowRange(Math.max(0, first), activation.rows - Math.max(0, first)));
        if (values.length === 0) return;
        const counted = inputs === undefined ? values : chosen(values, activation.cols, inputs);
        for (const role of readers[layer].get(site) ?? []) {
          this.#add(layer, role, counted, maps[layer]?.[role] ?? 0);
        }
      },
    };
  }

  /** Share of the blocks' weights that met a zero: over the layers, the mean by weights of every linear map. */
  get sparsity(): number {
    const { blocks } = this.#model.config.spec;
    const shareOf = (layer: number, role: string) => {
      const seen = this.#seen.get(`${layer} ${role}`);
      return seen === undefined ? 0 : seen.dropped / seen.inputs;
    };
    let sum = 0;
    for (const [layer, block] of blocks.entries()) {
      const costs = costsOf(block);
      const shares = Object.keys(costs).map((role) => [role, shareOf(layer, role)]);
      sum += blockSparsity(costs, Object.fromEntries(shares));
    }
    return sum / blocks.length;
  }

  #add(layer: number, role: string, values: Float32Array, threshold: number): void {
    const key = `${layer} ${role}`;
    const seen = this.#seen.get(key) ?? { inputs: 0, dropped: 0 };
    for (let i = 0; i < values.length; i++) if (Math.abs(values[i]) <= threshold) seen.dropped++;
    seen.inputs += values.length;
    this.#seen.set(key, seen);
  }
}

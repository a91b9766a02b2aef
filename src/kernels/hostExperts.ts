import type { JobOptions } from "../core/index.js";
import type { PackedFormatId } from "../pack/index.js";
import type { Activation, LinearOptions, Matrix, RowSource } from "./backend.js";
import type {
  ExpertLinearOptions,
  ExpertMatrices,
  ExpertOperations,
  RoutedSlots,
  RouteOptions,
  Routing,
} from "./experts.js";

// What backends share whose host knows which experts were chosen: the rows of an expert are gathered, so that every
// product is an ordinary one over neighbouring rows.

export interface HostRouting extends Routing {
  readonly slots: RoutedSlots;
  /** Slots of each row, [rows, perRow], the largest weight first. */
  readonly slotsOfRows: Uint32Array;
}

/** The matrices one by one. */
export interface ExpertList extends ExpertMatrices {
  readonly matrices: readonly Matrix[];
}

/** Stands for −∞, and its opposite for ∞, whose differences are no numbers. NaN makes all weights of its row NaN. */
const lowest = -3e38;

/** `Backend.route` in numbers. @param logits f32 [rows, cols] */
export function chooseExperts(logits: Float32Array, cols: number, options: RouteOptions): HostRouting {
  const { experts, perRow, normalise } = options;
  const rows = logits.length / cols;
  const all = Array.from({ length: experts }, (_, expert) => expert);
  const chosen: { row: number; expert: number; weight: number }[] = [];
  for (let row = 0; row < rows; row++) {
    const values = Array.from(logits.subarray(row * cols, row * cols + experts), (v) =>
      v > lowest ? Math.min(v, -lowest) : lowest,
    );
    const best = all.toSorted((a, b) => values[b] - values[a] || a - b).slice(0, perRow);
    const size = (expert: number) => Math.exp(values[expert] - values[best[0]]);
    const valid = !logits.subarray(row * cols, row * cols + experts).some(Number.isNaN);
    const total = (normalise ? best : all).reduce((sum, expert) => sum + size(expert), 0);
    for (const expert of best) chosen.push({ row, expert, weight: valid ? size(expert) / total : Number.NaN });
  }

  const order = Array.from(chosen.keys()).sort((a, b) => chosen[a].expert - chosen[b].expert || a - b);
  const slotsOfRows = new Uint32Array(order.length);
  for (const [slot, place] of order.entries()) slotsOfRows[place] = slot;
  return {
    rows,
    perRow,
    slots: {
      rows: Uint32Array.from(order, (place) => chosen[place].row),
      experts: Uint32Array.from(order, (place) => chosen[place].expert),
      weights: Float32Array.from(order, (place) => chosen[place].weight),
    },
    slotsOfRows,
  };
}

/** A backend that reads the logits and chooses on the host. */
export abstract class HostExperts
  implements Pick<ExpertOperations, "loadExperts" | "route" | "expertLinear" | "readRouting">
{
  abstract loadMatrix(parts: readonly RowSource[], format: PackedFormatId, job?: JobOptions): Promise<Matrix>;
  abstract allocate(rows: number, cols: number): Activation;
  abstract release(activation: Activation): void;
  abstract linear(out: Activation, x: Activation, w: Matrix, options?: LinearOptions): void;
  abstract read(activation: Activation): Promise<Float32Array>;
  /** out[s] = x[row of slot s] */
  abstract gatherRows(out: Activation, x: Activation, routing: HostRouting): void;

  async loadExperts(
    experts: readonly (readonly RowSource[])[],
    format: PackedFormatId,
    job: JobOptions = {},
  ): Promise<ExpertMatrices> {
    const matrices: Matrix[] = [];
    for (const parts of experts) matrices.push(await this.loadMatrix(parts, format, job));
    return expertList(matrices);
  }

  async route(logits: Activation, options: RouteOptions): Promise<Routing> {
    return chooseExperts(await this.read(logits), logits.cols, options);
  }

  /** One product for every expert with rows. */
  expertLinear(
    out: Activation,
    x: Activation,
    w: ExpertMatrices,
    routing: Routing,
    options: ExpertLinearOptions,
  ): void {
    const { from, thresholds } = options;
    const { matrices } = w as ExpertList;
    const { rows, experts } = (routing as HostRouting).slots;
    const gathers = from === "rows" && routing.rows > 1;
    const inputs = gathers ? this.allocate(rows.length, x.cols) : x;
    if (gathers) this.gatherRows(inputs, x, routing as HostRouting);
    for (let start = 0; start < rows.length; ) {
      let end = start + 1;
      while (end < rows.length && experts[end] === experts[start]) end++;
      const first = from === "rows" && !gathers ? 0 : start;
      const [to, of] = [out.rowRange(start, end - start), inputs.rowRange(first, end - start)];
      this.linear(to, of, matrices[experts[start]], { thresholds });
      start = end;
    }
    if (gathers) this.release(inputs);
  }

  async readRouting(routing: Routing): Promise<RoutedSlots> {
    return (routing as HostRouting).slots;
  }
}

export function expertList(matrices: readonly Matrix[]): ExpertList {
  const [{ format, rows, cols, parts }] = matrices;
  const byteLength = matrices.reduce((sum, matrix) => sum + matrix.byteLength, 0);
  return { format, experts: matrices.length, rows, cols, parts, byteLength, matrices };
}

import { type JobOptions, UsageError } from "../core/index.js";
import type { PackedFormatId } from "../pack/index.js";
import type { Activation, LinearOptions, Matrix, RowSource, Vector } from "./backend.js";
import type {
  ExpertLinearOptions,
  ExpertMatrices,
  ExpertOperations,
  LoadExpertsOptions,
  RoutedSlots,
  RouteOptions,
  Routing,
} from "./experts.js";
import type { WeightOwner } from "./region.js";
import { chooseExperts, type HostRouting, routingOfSlots } from "./routing.js";

// What backends share whose host knows which experts were chosen: the rows of an expert are gathered, so that every
// product is an ordinary one over neighbouring rows.

/** The matrices one by one. */
export interface ExpertList extends ExpertMatrices {
  readonly matrices: readonly Matrix[];
  /** f32 [rows] each, where the host adds them. */
  readonly biases?: readonly Vector[];
}

/** A backend that reads the logits and chooses on the host. */
export abstract class HostExperts
  implements
    Pick<ExpertOperations, "route" | "routeTo" | "expertLinear" | "readRouting">,
    Pick<WeightOwner, "loadMatrix" | "loadExperts" | "freeMatrix" | "freeVector" | "freeExperts">
{
  abstract loadMatrix(parts: readonly RowSource[], format: PackedFormatId, job?: JobOptions): Promise<Matrix>;
  abstract loadVector(values: Float32Array): Vector;
  abstract freeMatrix(matrix: Matrix): void;
  abstract freeVector(vector: Vector): void;
  abstract allocate(rows: number, cols: number): Activation;
  abstract release(activation: Activation): void;
  abstract linear(out: Activation, x: Activation, w: Matrix, options?: LinearOptions): void;
  abstract read(activation: Activation): Promise<Float32Array>;
  /** out[s] = x[row of slot s] */
  abstract gatherRows(out: Activation, x: Activation, routing: HostRouting): void;

  async loadExperts(
    experts: readonly (readonly RowSource[])[],
    format: PackedFormatId,
    { biases, ...job }: LoadExpertsOptions = {},
  ): Promise<ExpertMatrices> {
    const matrices: Matrix[] = [];
    const vectors: Vector[] = [];
    try {
      for (const parts of experts) matrices.push(await this.loadMatrix(parts, format, job));
      for (const bias of biases ?? []) vectors.push(this.loadVector(bias));
    } catch (error) {
      for (const matrix of matrices) this.freeMatrix(matrix);
      for (const vector of vectors) this.freeVector(vector);
      throw error;
    }
    return { ...expertList(matrices), ...(biases && { biases: vectors }) };
  }

  freeExperts(list: ExpertMatrices): void {
    const { matrices, biases = [] } = list as ExpertList;
    for (const matrix of matrices) this.freeMatrix(matrix);
    for (const bias of biases) this.freeVector(bias);
  }

  async route(logits: Activation, options: RouteOptions): Promise<Routing> {
    return chooseExperts(await this.read(logits), logits.cols, options);
  }

  routeTo(slots: RoutedSlots, rows: number): Routing {
    return routingOfSlots(slots, rows);
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
    const { matrices, biases } = w as ExpertList;
    const { rows, experts } = (routing as HostRouting).slots;
    const gathers = from === "rows" && routing.rows > 1;
    const inputs = gathers ? this.allocate(rows.length, x.cols) : x;
    if (gathers) this.gatherRows(inputs, x, routing as HostRouting);
    for (let start = 0; start < rows.length; ) {
      let end = start + 1;
      while (end < rows.length && experts[end] === experts[start]) end++;
      const first = from === "rows" && !gathers ? 0 : start;
      const [to, of] = [out.rowRange(start, end - start), inputs.rowRange(first, end - start)];
      const expert = experts[start];
      this.linear(to, of, matrices[expert], { thresholds, ...(biases && { bias: biases[expert] }) });
      start = end;
    }
    if (gathers) this.release(inputs);
  }

  async readRouting(routing: Routing): Promise<RoutedSlots> {
    return (routing as HostRouting).slots;
  }
}

/** A list of which only some are there. @throws UsageError without any */
export function expertListOf(
  matrices: ReadonlyMap<number, Matrix>,
  experts: number,
  biases?: readonly Vector[],
): ExpertList {
  const [any] = matrices.values();
  if (any === undefined) throw new UsageError("experts of which none is in memory");
  const { format, rows, cols, parts } = any;
  const list = Array.from({ length: experts }, (_, expert) => matrices.get(expert) as Matrix);
  const byteLength = experts * any.byteLength;
  return { format, experts, rows, cols, parts, byteLength, matrices: list, ...(biases && { biases }) };
}

export function expertList(matrices: readonly Matrix[]): ExpertList {
  const [{ format, rows, cols, parts }] = matrices;
  const byteLength = matrices.reduce((sum, matrix) => sum + matrix.byteLength, 0);
  return { format, experts: matrices.length, rows, cols, parts, byteLength, matrices };
}

import { UsageError } from "../core/index.js";
import type { Activation, AttentionOptions, KvCache, LinearOptions, Matrix, RopeTable, RowSource } from "./backend.js";
import type { ExpertLinearOptions, ExpertMatrices, RouteOptions, Routing } from "./experts.js";

/**
 * Operand checks that every backend runs before it enqueues an operation, so that a wrong call fails by name on all of
 * them instead of reading or writing out of bounds on some. All throw UsageError.
 */
export function check(op: string, holds: boolean, problem: () => string): void {
  if (!holds) throw new UsageError(`${op}: ${problem()}`);
}

const shape = (a: { rows: number; cols: number }) => `[${a.rows}, ${a.cols}]`;

export function checkFormat(format: string, available: readonly string[]): void {
  check(
    "loadMatrix",
    available.includes(format),
    () => `no kernels for "${format}" here, there are ${available.join(", ")}`,
  );
}

export function checkParts(parts: readonly RowSource[]): void {
  check("loadMatrix", parts.length > 0, () => "no parts");
  for (const part of parts) {
    check("loadMatrix", part.rows > 0 && part.cols > 0, () => `${part.name} is ${shape(part)}`);
    check(
      "loadMatrix",
      part.cols === parts[0].cols,
      () => `${part.name} has ${part.cols} columns, ${parts[0].name} has ${parts[0].cols}`,
    );
  }
}

export function checkAllocate(rows: number, cols: number): void {
  const valid = Number.isSafeInteger(rows) && Number.isSafeInteger(cols) && rows > 0 && cols > 0 && cols % 4 === 0;
  check("allocate", valid, () => `[${rows}, ${cols}] is not an activation shape (columns come in fours)`);
}

export function checkColumns(x: Activation, start: number, count: number): void {
  const valid = start >= 0 && count > 0 && start + count <= x.cols && start % 4 === 0 && count % 4 === 0;
  check("columns", valid, () => `${start} + ${count} in ${shape(x)} (columns come in fours)`);
}

export function checkRowRange(x: Activation, start: number, count: number): void {
  const valid = Number.isSafeInteger(start) && start >= 0 && count > 0 && start + count <= x.rows;
  check("rowRange", valid, () => `${start} + ${count} in ${shape(x)}`);
}

export function checkWrite(out: Activation, values: Float32Array): void {
  check("write", values.length === out.rows * out.cols, () => `${values.length} values for ${shape(out)}`);
}

/** @param ids the ids, or how many there are where only the device knows them */
export function checkEmbed(out: Activation, table: Matrix, ids: Uint32Array | number): void {
  check("embed", table.parts.length === 1, () => "the table is a stack");
  const count = typeof ids === "number" ? ids : ids.length;
  check(
    "embed",
    out.cols === table.cols && out.rows === count,
    () => `${count} ids of ${shape(table)} into ${shape(out)}`,
  );
  if (typeof ids === "number") return;
  for (const id of ids) check("embed", id < table.rows, () => `id ${id} in a table of ${table.rows}`);
}

export function checkRmsNorm(out: Activation, x: Activation, weightLength: number): void {
  checkSameShape("rmsNorm", out, x);
  check("rmsNorm", x.cols % weightLength === 0, () => `${x.cols} columns are no multiple of ${weightLength} weights`);
}

export function checkLayerNorm(out: Activation, x: Activation, weightLength: number, biasLength?: number): void {
  checkSameShape("layerNorm", out, x);
  check("layerNorm", x.cols % weightLength === 0, () => `${x.cols} columns are no multiple of ${weightLength} weights`);
  check(
    "layerNorm",
    biasLength === undefined || biasLength === weightLength,
    () => `${biasLength} biases for ${weightLength} weights`,
  );
}

export function checkAddGram(gram: Activation, x: Activation): void {
  check("addGram", gram.rows === x.cols && gram.cols === x.cols, () => `${shape(x)} into ${shape(gram)}`);
}

export function checkLinear(out: Activation, x: Activation, w: Matrix, options: LinearOptions): void {
  const { bias, thresholds } = options;
  check(
    "linear",
    x.cols === w.cols && out.cols === w.rows && out.rows === x.rows,
    () => `x ${shape(x)}, w ${shape(w)}, out ${shape(out)}`,
  );
  check("linear", bias === undefined || bias.length === w.rows, () => `${bias?.length} biases for ${w.rows} rows`);
  check(
    "linear",
    thresholds === undefined || thresholds.length === w.parts.length,
    () => `${thresholds?.length} thresholds for ${w.parts.length} parts`,
  );
}

export function checkRope(x: Activation, table: RopeTable, start: number): void {
  check("rope", x.cols % table.headDim === 0, () => `${x.cols} columns are no multiple of headDim ${table.headDim}`);
  check(
    "rope",
    start >= 0 && start + x.rows <= table.positions,
    () => `positions ${start} … ${start + x.rows - 1} of ${table.positions}`,
  );
}

export function checkAppendKv(cache: KvCache, layer: number, k: Activation, v: Activation, start: number): void {
  const { layers, kvHeads, headDim, capacity } = cache.spec;
  checkSameShape("appendKv", k, v);
  check("appendKv", k.cols === kvHeads * headDim, () => `${k.cols} columns for ${kvHeads} × ${headDim}`);
  check("appendKv", layer >= 0 && layer < layers, () => `layer ${layer} of ${layers}`);
  check(
    "appendKv",
    start >= 0 && start + k.rows <= capacity,
    () => `positions ${start} … ${start + k.rows - 1} in a cache of ${capacity}`,
  );
}

export function checkAttention(
  out: Activation,
  q: Activation,
  cache: KvCache,
  layer: number,
  options: AttentionOptions,
): void {
  const { layers, kvHeads, headDim, capacity } = cache.spec;
  const { queryHeads, start, window } = options;
  checkSameShape("attention", out, q);
  check("attention", q.cols === queryHeads * headDim, () => `${q.cols} columns for ${queryHeads} × ${headDim}`);
  check("attention", queryHeads % kvHeads === 0, () => `${queryHeads} query heads over ${kvHeads} key heads`);
  check("attention", layer >= 0 && layer < layers, () => `layer ${layer} of ${layers}`);
  check(
    "attention",
    start >= 0 && start + q.rows <= capacity,
    () => `positions ${start} … ${start + q.rows - 1} in a cache of ${capacity}`,
  );
  check("attention", window === undefined || window >= 1, () => `window ${window}`);
}

export function checkSameShape(op: string, a: Activation, b: Activation): void {
  check(op, a.rows === b.rows && a.cols === b.cols, () => `${shape(a)} against ${shape(b)}`);
}

export function checkTopK(x: Activation, k: number): void {
  check("topK", Number.isSafeInteger(k) && k >= 1 && k <= x.cols, () => `k = ${k} of ${x.cols} columns`);
}

export function checkExperts(experts: readonly (readonly RowSource[])[]): void {
  check("loadExperts", experts.length > 0, () => "no experts");
  const shapes = (parts: readonly RowSource[]) => parts.map(shape).join(" ");
  for (const parts of experts) {
    checkParts(parts);
    check(
      "loadExperts",
      shapes(parts) === shapes(experts[0]),
      () => `${parts[0].name} is ${shapes(parts)}, ${experts[0][0].name} is ${shapes(experts[0])}`,
    );
  }
}

export function checkRoute(logits: Activation, { experts, perRow }: RouteOptions): void {
  const valid = Number.isSafeInteger(experts) && Number.isSafeInteger(perRow) && perRow >= 1 && perRow <= experts;
  check("route", valid && experts <= logits.cols, () => `${perRow} of ${experts} experts by logits ${shape(logits)}`);
}

export function checkExpertLinear(
  out: Activation,
  x: Activation,
  w: ExpertMatrices,
  { rows, perRow }: Routing,
  { from, thresholds }: ExpertLinearOptions,
): void {
  const slots = rows * perRow;
  check(
    "expertLinear",
    x.cols === w.cols && out.cols === w.rows && out.rows === slots && x.rows === (from === "rows" ? rows : slots),
    () => `x ${shape(x)} by ${from}, w ${shape(w)}, out ${shape(out)}, ${rows} × ${perRow} slots`,
  );
  check(
    "expertLinear",
    thresholds === undefined || thresholds.length === w.parts.length,
    () => `${thresholds?.length} thresholds for ${w.parts.length} parts`,
  );
}

export function checkAddExperts(out: Activation, x: Activation, { rows, perRow }: Routing): void {
  check(
    "addExperts",
    out.rows === rows && x.rows === rows * perRow && out.cols === x.cols,
    () => `${shape(x)} into ${shape(out)}, ${rows} × ${perRow} slots`,
  );
}

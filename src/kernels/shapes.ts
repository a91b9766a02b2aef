import { UsageError } from "../core/index.js";
import type {
  Activation,
  AttentionOptions,
  HeadScoreOptions,
  LinearOptions,
  Matrix,
  PoolOptions,
  RopeLayout,
  RopeTable,
  RowSource,
  SwapOptions,
} from "./backend.js";
import type { ExpertLinearOptions, ExpertMatrices, RouteOptions, Routing } from "./experts.js";
import type { InputChoice } from "./inputChoice.js";
import { countOf, type KvCache, type KvCacheSpec, type KvLayer, type KvMoves, slotsOf } from "./kv.js";
import { fullBlock, rowsOfGroup, type SightSpec, slotsOfBlock } from "./sight.js";

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

export function checkReshape(x: Activation, stride: number, cols: number): void {
  const valid = cols > 0 && cols % 4 === 0 && (x.rows * x.cols) % cols === 0;
  check("reshape", valid, () => `${shape(x)} in rows of ${cols} (columns come in fours)`);
  check("reshape", stride === x.cols || x.rows === 1, () => `${shape(x)} is a part of wider rows`);
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

export function checkRopeLayout(cos: Float32Array, sin: Float32Array, layout: RopeLayout): void {
  const { headDim, first, width } = layout;
  const valid =
    [headDim, first, width].every(Number.isSafeInteger) && first >= 0 && width > 0 && first + width <= headDim;
  check("loadRope", valid && width % 2 === 0, () => `${width} columns from ${first} on, of heads of ${headDim}`);
  check(
    "loadRope",
    cos.length === sin.length && cos.length % (width / 2) === 0,
    () => `${cos.length} cosines and ${sin.length} sines for ${width / 2} pairs`,
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

/** The address space of a WebAssembly memory; GPUs bind no more either. */
const maxCachePieceBytes = 2 ** 32;

export function checkCacheSpec(spec: KvCacheSpec): void {
  const { layers, mass, codes } = spec;
  const isCount = (n: number) => Number.isSafeInteger(n) && n > 0;
  check(
    "createKvCache",
    isCount(spec.slots) && layers.length > 0,
    () => `${layers.length} layers of ${spec.slots} slots`,
  );
  if (codes !== undefined) {
    const { bits, kivi } = codes;
    check("createKvCache", [2, 4, 8].includes(bits), () => `codes of ${bits} bits; there are 2, 4 and 8`);
    const counts = kivi === undefined || (isCount(kivi.residual) && isCount(kivi.rows));
    check("createKvCache", counts, () => `KIVI with ${kivi?.residual} exact tokens and passes of ${kivi?.rows}`);
    check("createKvCache", kivi === undefined || mass === undefined, () => "groups of tokens do not go with mass");
  }
  for (const [layer, { heads, key, value, valueInKey }] of layers.entries()) {
    const slots = slotsOf(spec, layer);
    check("createKvCache", isCount(slots), () => `layer ${layer} of ${slots} slots`);
    check("createKvCache", !valueInKey || value <= key, () => `values of ${value} columns within keys of ${key}`);
    check(
      "createKvCache",
      isCount(heads) && isCount(key) && isCount(value) && key % 4 === 0 && value % 4 === 0,
      () => `${heads} heads with keys of ${key} and values of ${value} (widths come in fours)`,
    );
    const bytes = 4 * slots * heads * Math.max(key, value);
    check(
      "createKvCache",
      bytes <= maxCachePieceBytes,
      () =>
        `the keys of one layer for ${slots} slots take ${bytes} bytes; no backend holds more than ${maxCachePieceBytes} in ` +
        "one piece, so use a smaller capacity",
    );
  }
}

/** @returns what the cache keeps of the layer */
function checkedLayer(op: string, { spec }: KvCache, layer: number): KvLayer {
  check(op, layer >= 0 && layer < spec.layers.length, () => `layer ${layer} of ${spec.layers.length}`);
  return spec.layers[layer];
}

function checkSlots(op: string, cache: KvCache, layer: number, start: number, rows: number): void {
  const slots = slotsOf(cache.spec, layer);
  const valid = Number.isSafeInteger(start) && start >= 0 && start + rows <= slots;
  check(op, valid, () => `slots ${start} … ${start + rows - 1} in a cache of ${slots}`);
}

export function checkAppendKv(
  cache: KvCache,
  layer: number,
  k: Activation,
  v: Activation | undefined,
  start: number,
): void {
  const { heads, key, value, valueInKey = false } = checkedLayer("appendKv", cache, layer);
  check("appendKv", k.cols === heads * key, () => `${k.cols} columns for ${heads} × ${key}`);
  check("appendKv", valueInKey === (v === undefined), () => `values ${valueInKey ? "that lie in keys" : "left out"}`);
  if (v !== undefined) {
    check("appendKv", k.rows === v.rows, () => `${shape(k)} against ${shape(v)}`);
    check("appendKv", v.cols === heads * value, () => `${v.cols} columns for ${heads} × ${value}`);
  }
  checkSlots("appendKv", cache, layer, start, k.rows);
}

export function checkAttention(
  out: Activation,
  q: Activation,
  cache: KvCache,
  layer: number,
  options: AttentionOptions,
): void {
  const { heads, key, value } = checkedLayer("attention", cache, layer);
  const { queryHeads, start, sight, sinks } = options;
  check("attention", out.rows === q.rows, () => `${shape(out)} against ${shape(q)}`);
  check("attention", q.cols === queryHeads * key, () => `${q.cols} columns for ${queryHeads} × ${key}`);
  check("attention", out.cols === queryHeads * value, () => `${out.cols} columns for ${queryHeads} × ${value}`);
  check("attention", queryHeads % heads === 0, () => `${queryHeads} query heads over ${heads} key heads`);
  check(
    "attention",
    (sinks?.length ?? queryHeads) === queryHeads,
    () => `${sinks?.length} sinks for ${queryHeads} heads`,
  );
  checkSlots("attention", cache, layer, start, q.rows);
  if (sight?.spec.kind !== "blocks") return;
  const { rows, slots, tableOfHead } = sight.spec;
  check("attention", rows === q.rows, () => `a block mask of ${rows} rows for ${q.rows}`);
  const room = slotsOf(cache.spec, layer);
  check("attention", slots <= room, () => `a block mask of ${slots} slots for ${room}`);
  check(
    "attention",
    tableOfHead.length === queryHeads,
    () => `a block mask of ${tableOfHead.length} heads for ${queryHeads}`,
  );
}

export function checkReadKeys(out: Activation, cache: KvCache, layer: number, start: number): void {
  const { heads, key } = checkedLayer("readKeys", cache, layer);
  check("readKeys", out.cols === heads * key, () => `${heads} × ${key} into ${out.cols} columns`);
  checkSlots("readKeys", cache, layer, start, out.rows);
}

export function checkPoolRows(out: Activation, x: Activation, { every }: PoolOptions): void {
  check("poolRows", Number.isSafeInteger(every) && every > 0, () => `groups of ${every} rows`);
  const fits = out.cols === x.cols && out.rows === Math.ceil(x.rows / every);
  check("poolRows", fits, () => `${shape(x)} by ${every} into ${shape(out)}`);
}

export function checkSwapAxes(out: Activation, x: Activation, { turned, run }: SwapOptions): void {
  const sizes = [turned, run].every((size) => Number.isSafeInteger(size) && size > 0);
  check("swapAxes", sizes && x.cols % (turned * run) === 0, () => `${shape(x)} in axes of ${turned} and ${run}`);
  check("swapAxes", out.rows === x.rows && out.cols === x.cols, () => `${shape(x)} into ${shape(out)}`);
}

export function checkKeepLargest(out: Activation, x: Activation, choice: InputChoice): void {
  check("keepLargest", out.cols === x.cols && out.rows === x.rows, () => `${shape(x)} into ${shape(out)}`);
  if ("mass" in choice) {
    check("keepLargest", choice.mass >= 0 && choice.mass <= 1, () => `a share of ${choice.mass} of all magnitudes`);
    return;
  }
  const { count, of = x.cols } = choice;
  const whole = Number.isSafeInteger(count) && count >= 0 && Number.isSafeInteger(of) && of > 0;
  check("keepLargest", whole, () => `${count} of every ${of} inputs`);
}

export function checkHeadScores(out: Activation, q: Activation, k: Activation, options: HeadScoreOptions): void {
  const { queryHeads, kvHeads, stride = 1 } = options;
  check("headScores", Number.isSafeInteger(stride) && stride > 0, () => `a stride of ${stride}`);
  check("headScores", queryHeads % kvHeads === 0, () => `${queryHeads} query heads over ${kvHeads} key heads`);
  const width = k.cols / kvHeads;
  const valid = width % 4 === 0 && q.cols === queryHeads * width;
  check("headScores", valid, () => `${shape(q)} of ${queryHeads} heads with ${shape(k)} of ${kvHeads}`);
  const room = out.cols / queryHeads;
  const fits = out.rows === Math.ceil(q.rows / stride) && Number.isInteger(room) && room >= Math.ceil(k.rows / stride);
  check("headScores", fits, () => `${shape(q)} with ${shape(k)} by ${stride} into ${shape(out)}`);
}

export function checkSight(spec: SightSpec): void {
  if (spec.kind === "causal") {
    const { window } = spec;
    check("loadSight", window === undefined || (Number.isSafeInteger(window) && window >= 1), () => `window ${window}`);
  }
  if (spec.kind !== "blocks") return;
  const { rows, slots, tables, tableOfHead, first, blocks, masks, bits } = spec;
  const groups = Math.ceil(rows / rowsOfGroup);
  const maskWords = tables * rowsOfGroup;
  check("loadSight", rows > 0 && slots > 0 && tables > 0, () => `${rows} rows, ${slots} slots, ${tables} tables`);
  check("loadSight", first.length === groups + 1, () => `${first.length} lists for ${rows} rows`);
  check(
    "loadSight",
    first[0] === 0 && first.every((at, i) => i === 0 || at >= first[i - 1]) && first[groups] === blocks.length,
    () => "the lists do not follow one another",
  );
  check("loadSight", masks.length === blocks.length, () => `${masks.length} masks for ${blocks.length} blocks`);
  for (const block of blocks)
    check("loadSight", block * slotsOfBlock < slots, () => `block ${block} of ${slots} slots`);
  for (const mask of masks) {
    check("loadSight", mask === fullBlock || (mask + 1) * maskWords <= bits.length, () => `there is no mask ${mask}`);
  }
  for (const table of tableOfHead) check("loadSight", table < tables, () => `table ${table} of ${tables}`);
}

export function checkMoveKv(cache: KvCache, layer: number, { heads, from, to, turn }: KvMoves): void {
  const kept = checkedLayer("moveKv", cache, layer);
  const lengths = [heads, from, to, ...(turn === undefined ? [] : [turn.by])].map(({ length }) => length);
  check("moveKv", new Set(lengths).size === 1, () => `lists of ${lengths.join(", ")}`);
  const { codes } = cache.spec;
  check("moveKv", codes?.kivi === undefined, () => "entries of groups do not move alone");
  check("moveKv", codes === undefined || turn === undefined, () => "keys that are codes do not turn");
  for (const head of heads) check("moveKv", head < kept.heads, () => `head ${head} of ${kept.heads}`);
  const slots = slotsOf(cache.spec, layer);
  for (const slot of [...from, ...to]) check("moveKv", slot < slots, () => `slot ${slot} of ${slots}`);
  if (turn === undefined) return;
  const { headDim, positions } = turn.table;
  check("moveKv", headDim === kept.key, () => `a table for keys of ${headDim} for ${kept.key}`);
  for (const by of turn.by)
    check("moveKv", Math.abs(by) < positions, () => `a turn by ${by} of ${positions} positions`);
}

export function checkCopyKv(from: KvCache, to: KvCache, slots: number | readonly number[]): void {
  const layersOf = ({ spec }: KvCache) =>
    spec.layers.map(({ heads, key, value, valueInKey = false }) => [heads, key, value, valueInKey].join()).join(" ");
  check("copyKv", from !== to && layersOf(from) === layersOf(to), () => "caches of other layers, or one and the same");
  for (const { spec } of [from, to]) {
    check("copyKv", spec.codes === undefined && spec.mass === undefined, () => "caches with codes or mass");
    const listed = typeof slots === "number" || slots.length === spec.layers.length;
    check("copyKv", listed, () => `slots of other layers than ${spec.layers.length}`);
    for (const layer of spec.layers.keys()) {
      const [count, room] = [countOf(slots, layer), slotsOf(spec, layer)];
      // A layer by itself may hold nothing.
      const valid = Number.isSafeInteger(count) && count >= (typeof slots === "number" ? 1 : 0) && count <= room;
      check("copyKv", valid, () => `${count} slots of a cache of ${room}`);
    }
  }
}

export function checkMass(cache: KvCache): void {
  check("readMass", cache.spec.mass !== undefined, () => "the cache was made without mass");
}

export function checkSameShape(op: string, a: Activation, b: Activation): void {
  check(op, a.rows === b.rows && a.cols === b.cols, () => `${shape(a)} against ${shape(b)}`);
}

export function checkTopK(x: Activation, k: number): void {
  check("topK", Number.isSafeInteger(k) && k >= 1 && k <= x.cols, () => `k = ${k} of ${x.cols} columns`);
}

export function checkExperts(
  experts: readonly (readonly RowSource[])[],
  biases?: readonly { readonly length: number }[],
): void {
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
  const rows = experts[0].reduce((sum, part) => sum + part.rows, 0);
  check(
    "loadExperts",
    biases === undefined || (biases.length === experts.length && biases.every(({ length }) => length === rows)),
    () => `biases of ${biases?.map(({ length }) => length)} for ${experts.length} experts of ${rows} rows`,
  );
}

export function checkRoute(logits: Activation, { experts, perRow, choiceBias, groups }: RouteOptions): void {
  const valid = Number.isSafeInteger(experts) && Number.isSafeInteger(perRow) && perRow >= 1 && perRow <= experts;
  check("route", valid && experts <= logits.cols, () => `${perRow} of ${experts} experts by logits ${shape(logits)}`);
  const biases = choiceBias?.length ?? experts;
  check("route", biases === experts, () => `${biases} biases for ${experts} experts`);
  if (groups === undefined) return;
  const { count, kept } = groups;
  const whole = Number.isSafeInteger(count) && count >= 1 && experts % count === 0;
  const enough = Number.isSafeInteger(kept) && kept >= 1 && kept <= count && (kept * experts) / count >= perRow;
  check("route", whole && enough, () => `${perRow} of ${experts} experts in ${kept} of ${count} groups`);
}

export function checkExpertLinear(
  out: Activation,
  x: Activation,
  w: ExpertMatrices,
  { rows, slotCount: slots }: Routing,
  { from, thresholds }: ExpertLinearOptions,
): void {
  check(
    "expertLinear",
    x.cols === w.cols && out.cols === w.rows && out.rows === slots && x.rows === (from === "rows" ? rows : slots),
    () => `x ${shape(x)} by ${from}, w ${shape(w)}, out ${shape(out)}, ${slots} slots of ${rows} rows`,
  );
  check(
    "expertLinear",
    thresholds === undefined || thresholds.length === w.parts.length,
    () => `${thresholds?.length} thresholds for ${w.parts.length} parts`,
  );
}

export function checkAddExperts(out: Activation, x: Activation, { rows, slotCount: slots }: Routing): void {
  check(
    "addExperts",
    out.rows === rows && x.rows === slots && out.cols === x.cols,
    () => `${shape(x)} into ${shape(out)}, ${slots} slots of ${rows} rows`,
  );
}

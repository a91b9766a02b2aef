import { type AttendStep, type BlockSpec, findStep, type GateSpec, type TensorRef } from "../arch/index.js";
import { gatedWeights, gateEpsilon } from "../arch/internal.js";
import { UsageError } from "../core/index.js";
import { type Activation, type KvCache, keyBlocks, type Sight, type Vector } from "../kernels/index.js";
import type { AdaptedRows } from "./adapterPairs.js";
import type { LoadedGates, Pass, PassPart } from "./pass.js";
import type { GateCounts } from "./types.js";

/** A gate, loaded. */
interface Gate {
  readonly spec: GateSpec;
  /** f32 [hiddenSize]: one row of weights, which is a vector like that of a norm. */
  readonly vector: Vector;
  readonly bias: number;
  /** Weights of the maps behind it. */
  readonly weights: number;
  /** What attends behind it, if anything does. */
  readonly attend: AttendStep | undefined;
}

/** What loads the numbers of a gate. */
interface GateLoader {
  values(ref: TensorRef): Promise<Float32Array>;
  vector(values: Float32Array): Vector;
}

/** The gates of a block; this file is loaded with a model that has any. */
export async function loadGates(block: BlockSpec, loader: GateLoader): Promise<LoadedGates> {
  const gates: Gate[] = [];
  for (const spec of block.gates ?? []) {
    const { weight, bias } = spec.map;
    gates.push({
      spec,
      vector: loader.vector(await loader.values(weight)),
      bias: (await loader.values(bias!))[0],
      weights: gatedWeights(block, spec),
      attend: findStep({ steps: block.steps.slice(spec.from, spec.to) }, "attend"),
    });
  }
  return new BlockGates(gates);
}

/**
 * Runs parts of a block for the tokens that their gates let through, gathered into rows that follow one another. A token that went
 * past attention has no slot in the cache of that layer: slots there are those of the others, in their order.
 */
class BlockGates implements LoadedGates {
  /** Positions of the tokens in the slots of each layer. */
  readonly #held = new WeakMap<KvCache, Map<number, number[]>>();
  readonly counts: GateCounts = { offered: 0, met: 0 };

  constructor(readonly gates: readonly Gate[]) {}

  async run(...[pass, run, end, ranges, given]: Parameters<LoadedGates["run"]>): Promise<void> {
    if (this.gates.some(({ spec, attend }) => attend && spec.kind === "hard")) refuseSights(pass.layer, given);
    let done = 0;
    for (const [g, { from, to }] of ranges.entries()) {
      if (from >= end) break;
      await run(pass, done, from);
      const { kind } = this.gates[g].spec;
      const behind = (own: Pass) => run(own, from, Math.min(to, end));
      if (kind === "soft") await this.#weigh(this.gates[g], pass, behind);
      else await this.#let(this.gates[g], pass, behind);
      done = Math.min(to, end);
    }
    await run(pass, done, end);
  }

  takeCounts(of: readonly LoadedGates[]): GateCounts {
    const sum = { offered: 0, met: 0 };
    for (const { counts } of new Set(of)) {
      sum.offered += counts.offered;
      sum.met += counts.met;
      Object.assign(counts, { offered: 0, met: 0 });
    }
    return sum;
  }

  /** z of every row: tokens with z > 0 are let through. The host adds up, since it has to know. */
  async #ask({ vector, bias }: Gate, { backend, x, scratch }: Pass): Promise<Float64Array> {
    const seen = scratch(x.rows, x.cols, "seen by a gate");
    backend.rmsNorm(seen, x, vector, gateEpsilon);
    const products = await backend.read(seen);
    return Float64Array.from({ length: x.rows }, (_, row) => {
      let z = bias;
      for (let c = row * x.cols; c < (row + 1) * x.cols; c++) z += products[c];
      return z;
    });
  }

  /** x + g · what the part adds, for every row. */
  async #weigh(gate: Gate, pass: Pass, behind: (pass: Pass) => Promise<void>): Promise<void> {
    const { backend, x, scratch, keysOnly } = pass;
    const z = await this.#ask(gate, pass);
    this.#count(gate, x.rows, x.rows);
    if (keysOnly) return behind(pass);
    const before = scratch(x.rows, x.cols, "before a gate");
    copy(pass, before, x);
    await behind(pass);
    for (const [row, value] of z.entries()) {
      const open = Math.fround(1 / (1 + Math.exp(-value)));
      // What is wholly there stays as it is, bit for bit.
      if (open === 1) continue;
      const [own, kept] = [x.rowRange(row, 1), before.rowRange(row, 1)];
      backend.map(own, own, { f: "scale", by: open });
      backend.map(kept, kept, { f: "scale", by: Math.fround(1 - open) });
      backend.add(own, kept);
    }
  }

  async #let(gate: Gate, pass: Pass, behind: (pass: Pass) => Promise<void>): Promise<void> {
    const { x, scratch, keysOnly } = pass;
    const z = await this.#ask(gate, pass);
    const open = [...z.keys()].filter((row) => z[row] > 0);
    this.#count(gate, x.rows, open.length);
    const sights: Sight[] = [];
    const parts = this.#partsOf(gate, pass, open, sights);
    if (open.length === 0) return;
    const runs = runsOf(open);
    const all = open.length === x.rows;
    const rows = all ? x : scratch(open.length, x.cols, "let through a gate");
    const own: Pass = {
      ...pass,
      x: rows,
      buffers: all ? pass.buffers : pass.buffersFor(open.length),
      parts,
      adapted: all ? pass.adapted : amongOpen(pass.adapted, open),
      sparseFromRow: all ? pass.sparseFromRow : open.filter((row) => row < pass.sparseFromRow).length,
    };
    const eachRun = (act: (gathered: Activation, stream: Activation) => void) => {
      let at = 0;
      for (const { first, count } of runs) {
        act(rows.rowRange(at, count), x.rowRange(first, count));
        at += count;
      }
    };
    if (!all) eachRun((gathered, stream) => copy(pass, gathered, stream));
    await behind(own);
    if (!all && !keysOnly) eachRun((gathered, stream) => copy(pass, stream, gathered));
    for (const sight of sights) sight[Symbol.dispose]();
  }

  /** The rows that are let through, those of each sequence whose positions follow one another together. @param sights made here */
  #partsOf({ attend }: Gate, pass: Pass, open: readonly number[], sights: Sight[]): PassPart[] {
    const parts: PassPart[] = [];
    let firstRow = 0;
    for (const part of pass.parts) {
      const { firstRow: begin, rows: all, cache, start } = part;
      const held = attend && this.#heldIn(cache, pass.layer);
      if (held !== undefined) truncate(held, start);
      for (const { first, count: rows } of runsOf(open.filter((row) => row >= begin && row < begin + all))) {
        const from = start + first - begin;
        const slot = held === undefined ? part.slot + first - begin : held.length;
        for (let row = 0; row < rows; row++) held?.push(from + row);
        const sight = held && windowSight(pass, attend, held, slot, rows);
        if (sight !== undefined) sights.push(sight);
        const places = [{ rows, slot }];
        parts.push({ ...part, firstRow, rows, start: from, slot, places, ...(sight && { sight: () => sight }) });
        firstRow += rows;
      }
    }
    return parts;
  }

  #heldIn(cache: KvCache, layer: number): number[] {
    const layers = this.#held.get(cache) ?? new Map<number, number[]>();
    this.#held.set(cache, layers);
    const held = layers.get(layer) ?? [];
    layers.set(layer, held);
    return held;
  }

  #count({ weights }: Gate, offered: number, met: number): void {
    this.counts.offered += offered * weights;
    this.counts.met += met * weights;
  }
}

const copy = ({ backend }: Pass, to: Activation, from: Activation) => backend.map(to, from, { f: "scale", by: 1 });

/** Leaves positions before `start`. */
function truncate(held: number[], start: number): void {
  let length = held.length;
  while (length > 0 && held[length - 1] >= start) length--;
  held.length = length;
}

/** The last `window` positions, where those are not the last slots. */
function windowSight(
  { backend }: Pass,
  { sight, heads }: AttendStep,
  held: readonly number[],
  slot: number,
  rows: number,
): Sight | undefined {
  if (sight.kind !== "window" || held.at(-1)! - held[0] + 1 === held.length) return undefined;
  const positions = [...held];
  return backend.loadSight(
    keyBlocks({ rows, slots: slot + rows, tableOfHead: new Array<number>(heads).fill(0) }, (row) => {
      const own = slot + row;
      return [[positions.findIndex((position) => position > positions[own] - sight.window), own + 1]];
    }),
  );
}

/** Which of the rows that are let through have an adapter. */
function amongOpen(adapted: readonly AdaptedRows[], open: readonly number[]): AdaptedRows[] {
  return adapted.flatMap(({ firstRow, rows, adapter }) => {
    const before = open.filter((row) => row < firstRow).length;
    const count = open.filter((row) => row < firstRow + rows).length - before;
    return count === 0 ? [] : [{ firstRow: before, rows: count, adapter }];
  });
}

/** @throws UsageError for what tells by slots, or by pages, what is seen where slots are those of tokens that were let through */
function refuseSights(layer: number, parts: Parameters<LoadedGates["run"]>[4]): void {
  for (const { sights, places, findSight, slot } of parts) {
    if (places === undefined && findSight === undefined && slot === undefined && sights?.[layer] === undefined)
      continue;
    throw new UsageError(
      "a model whose gates let tokens past attention keeps each text in a cache of its own, and tokens see all that it keeps",
    );
  }
}

/** Ascending numbers as runs that follow one another. */
function runsOf(numbers: readonly number[]): { first: number; count: number }[] {
  const runs: { first: number; count: number }[] = [];
  for (const number of numbers) {
    const last = runs.at(-1);
    if (last !== undefined && last.first + last.count === number) last.count++;
    else runs.push({ first: number, count: 1 });
  }
  return runs;
}

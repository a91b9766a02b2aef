import { type BlockSpec, type Buffer, type LinearStep, type ModelSpec, type Step, stepsOf } from "../arch/index.js";
import { latentAt, latentSteps, mostExpertsOf, widthOf } from "../arch/internal.js";
import type { Activation, Backend } from "../kernels/index.js";
import { padTo4 } from "./footprint.js";

/** Buffers of a block that lie side by side in one allocation, because one linear step writes them. */
interface Group {
  key: string;
  /** One row for every row of a pass, or for every expert that a row is sent to. */
  of: "rows" | "slots";
  members: { buffer: Buffer; start: number; width: number }[];
  width: number;
}

/** Names of what the interpreter itself needs beside the buffers of the steps. */
export const routerLogits = "router logits";
export const lowRank = "low rank";
/** Queries and keys of context pruning, side by side. */
export const interactions = ["interaction queries", "interaction keys"] as const;
/** Of latent attention: queries as they are held against what is kept, and what they take of it. */
export const latentQueries = "latent queries";
export const latentSums = "latent sums";

/** How the buffers of a block lie. @param ranks the largest sum of ranks in a stack of the block */
export function groupsOf(block: BlockSpec, hiddenSize: number, ranks: number): Group[] {
  const groups = new Map<string, Group>();
  const widths = new Map<Buffer, number>([["x", hiddenSize]]);
  const add = (of: Group["of"], buffers: readonly { buffer: Buffer; width: number }[]) => {
    const key = buffers.map(({ buffer }) => buffer).join("+");
    let start = 0;
    const members = buffers.map(({ buffer, width }) => {
      const member = { buffer, start, width };
      start += width;
      widths.set(buffer, width);
      return member;
    });
    const known = groups.get(key);
    if (known === undefined || known.width < start) groups.set(key, { key, of, members, width: start });
  };
  const one = (of: Group["of"], buffer: Buffer, width: number) => {
    if (!widths.has(buffer)) add(of, [{ buffer, width }]);
  };
  const walk = (steps: readonly Step[], of: Group["of"]) => {
    for (let s = 0; s < steps.length; s++) {
      const step = steps[s];
      const absorbed = latentAt(steps, s);
      if (absorbed !== undefined) {
        // Keys and values are never made.
        const { attend, latent } = absorbed;
        one(of, latentQueries, attend.heads * (latent.rank + latent.width));
        one(of, latentSums, attend.heads * latent.rank);
        one(of, attend.into, attend.heads * attend.kv.v);
        s += latentSteps - 1;
      } else if (step.do === "linear") {
        const written = (step as LinearStep).maps.map(({ map, into }) => ({ buffer: into, width: map.rows }));
        if (written.some(({ buffer }) => !widths.has(buffer))) add(of, written);
      } else if (step.do === "attend") {
        one(of, step.into, step.heads * step.kv.v);
        if (step.pruning !== undefined)
          add(
            of,
            interactions.map((buffer) => ({ buffer, width: step.pruning!.query.rows })),
          );
      } else if (step.do === "multiplicative") {
        for (const map of step.maps) one(of, map.into, widthOf(map));
      } else if (step.do === "convolve") {
        for (const { into } of step.maps) one(of, into, step.width);
      } else if (step.do === "mixture") {
        one("rows", routerLogits, padTo4(step.router.map.rows));
        walk(step.experts[0].steps, "slots");
      } else if ("into" in step && typeof step.of === "string") one(of, step.into, widths.get(step.of) ?? hiddenSize);
    }
  };
  walk(block.steps, "rows");
  if (ranks > 0) one("rows", lowRank, ranks);
  return [...groups.values()];
}

/** Slots of a row in the mixtures of a block. */
export function slotsPerRow(block: BlockSpec): number {
  for (const step of stepsOf(block)) if (step.do === "mixture") return mostExpertsOf(step.router);
  return 1;
}

/** Bytes of working memory that a pass over part of a prompt may take. */
const maxPassBytes = 2 ** 28;

/** Bytes of working memory of one row, in the widest block. */
export function rowBytes({ hiddenSize, blocks }: Pick<ModelSpec, "hiddenSize" | "blocks">): number {
  const floats = blocks.map((block) =>
    groupsOf(block, hiddenSize, 0).reduce(
      (sum, { of, width }) => sum + width * (of === "slots" ? slotsPerRow(block) : 1),
      2 * hiddenSize,
    ),
  );
  return Float32Array.BYTES_PER_ELEMENT * Math.max(...floats);
}

/** Rows of a pass, at most `wanted`, whose working memory stays small even where a config claims very wide layers. */
export const mostPassRows = (spec: Pick<ModelSpec, "hiddenSize" | "blocks">, wanted: number): number =>
  Math.max(1, Math.min(wanted, Math.floor(maxPassBytes / rowBytes(spec))));

/** Working memory of one block's pass over some rows, by the names of its buffers. */
export interface Buffers {
  of(buffer: Buffer): Activation;
  /** Buffers that lie side by side as one; undefined where they do not. */
  together(buffers: readonly Buffer[]): Activation | undefined;
}

/**
 * Hands out working memory for any number of rows. It is allocated for the largest number asked for so far and for the
 * widest block; smaller passes and narrower blocks use its first rows and columns through views that are made once, so
 * that decoding allocates nothing.
 */
export class BufferPool implements Disposable {
  #rows = 0;
  readonly #widths = new Map<string, { of: Group["of"]; width: number }>();
  /** Slots of a row that there is room for. */
  readonly slots: number;
  readonly #kinds: { id: number; groups: Group[] }[];
  #allocated = new Map<string, Activation>();
  #views = new Map<string, Buffers>();
  /** By purpose and columns. */
  readonly #scratch = new Map<string, Activation>();

  /** @param ranks of each block, see `groupsOf` */
  constructor(
    readonly backend: Backend,
    readonly hiddenSize: number,
    blocks: readonly BlockSpec[],
    ranks: readonly number[],
  ) {
    this.slots = Math.max(1, ...blocks.map(slotsPerRow));
    const ids = new Map<string, number>();
    this.#kinds = blocks.map((block, layer) => {
      const groups = groupsOf(block, hiddenSize, ranks[layer]);
      const shape = JSON.stringify(groups);
      if (!ids.has(shape)) ids.set(shape, ids.size);
      return { id: ids.get(shape)!, groups };
    });
    for (const { groups } of this.#kinds) {
      for (const { key, of, width } of groups) {
        const known = this.#widths.get(key);
        // What one block has for every row another may have for every slot.
        const most = of === "slots" || known?.of === "slots" ? "slots" : "rows";
        this.#widths.set(key, { of: most, width: Math.max(width, known?.width ?? 0) });
      }
    }
  }

  /** The residual stream of a pass: [rows, hiddenSize]. */
  residual(rows: number): Activation {
    if (rows > this.#rows) this.#grow(rows);
    return this.#first("residual", rows);
  }

  /** What a head needs before its matrix: [rows, hiddenSize]. */
  normed(rows: number): Activation {
    if (rows > this.#rows) this.#grow(rows);
    return this.#first("normed", rows);
  }

  /** For what only some settings need: held from the first time on, as large as it had to be. */
  scratch(rows: number, cols: number, purpose = ""): Activation {
    const key = `${purpose} ${cols}`;
    let held = this.#scratch.get(key);
    if (held === undefined || held.rows < rows) {
      if (held !== undefined) this.backend.release(held);
      held = this.backend.allocate(rows, cols);
      this.#scratch.set(key, held);
    }
    return held.rows === rows ? held : held.rowRange(0, rows);
  }

  forRows(rows: number, layer: number): Buffers {
    if (rows > this.#rows) this.#grow(rows);
    const { id, groups } = this.#kinds[layer];
    const key = `${rows} ${id}`;
    let buffers = this.#views.get(key);
    if (buffers === undefined) {
      buffers = this.#view(rows, groups);
      this.#views.set(key, buffers);
    }
    return buffers;
  }

  #first(name: string, rows: number): Activation {
    const key = `${rows} ${name}`;
    return (this.#views.get(key) ?? this.#set(key, this.#allocated.get(name)!.rowRange(0, rows))).of(name);
  }

  #set(key: string, activation: Activation): Buffers {
    const buffers = { of: () => activation, together: () => undefined };
    this.#views.set(key, buffers);
    return buffers;
  }

  #grow(rows: number): void {
    this[Symbol.dispose]();
    this.#allocated.set("residual", this.backend.allocate(rows, this.hiddenSize));
    const widths = new Map(this.#widths);
    if (!widths.has("normed")) widths.set("normed", { of: "rows", width: this.hiddenSize });
    for (const [key, { of, width }] of widths) {
      this.#allocated.set(key, this.backend.allocate(of === "rows" ? rows : rows * this.slots, width));
    }
    this.#rows = rows;
  }

  #view(rows: number, groups: readonly Group[]): Buffers {
    const views = new Map<string, Activation>();
    const together = new Map<string, Activation>();
    for (const { key, of, members } of groups) {
      const whole = this.#allocated.get(key)!.rowRange(0, of === "rows" ? rows : rows * this.slots);
      for (const [m, { buffer, start, width }] of members.entries()) {
        views.set(buffer, whole.columns(start, width));
        for (let last = m; last < members.length; last++) {
          const names = members.slice(m, last + 1);
          const end = names.at(-1)!.start + names.at(-1)!.width;
          together.set(names.map((one) => one.buffer).join("+"), whole.columns(start, end - start));
        }
      }
    }
    return {
      of: (buffer) => views.get(buffer)!,
      together: (buffers) => together.get(buffers.join("+")),
    };
  }

  [Symbol.dispose](): void {
    for (const activation of [...this.#allocated.values(), ...this.#scratch.values()]) this.backend.release(activation);
    this.#scratch.clear();
    this.#allocated = new Map();
    this.#views.clear();
    this.#rows = 0;
  }
}

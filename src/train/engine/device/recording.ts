import type { Buffer, TensorRef } from "../../../arch/index.js";
import { parameterName } from "../../models/parameters.js";
import type { RouterOptions } from "../../models/routerOptions.js";
import type { Layout, Place } from "./layout.js";
import { NoKernel } from "./noKernel.js";
import type { Operation } from "./pass.js";
import { Room, type RowKind, type Slots, smallestOf, type View } from "./rooms.js";

/** Numbers that a model needs on the device beside its parameters. */
export interface Table {
  label: string;
  values: Float32Array;
}

/** What is measured of a batch beside its loss: f32 behind the gradients, from `offset` on. */
export interface Measured {
  name: string;
  offset: number;
  length: number;
  /** Added to the loss. */
  isPenalty: boolean;
}

/** How a model is trained beside what its description says. */
export interface RecordingOptions {
  /** Token 0 fills up texts that are shorter, so that no position sees it. */
  filledUp?: boolean;
  router?: RouterOptions;
  /** Nothing is walked back: rooms of a block are used again by the next. */
  forwardOnly?: boolean;
}

/** A model while it is planned: what of it lies where, and the operations of its steps in their order. */
export class Recording {
  readonly operations: Operation[] = [];
  readonly rooms: Room[] = [];
  readonly tables: Table[] = [];
  readonly measured: Measured[] = [];
  /** Widths of what a teacher may give, by its name in a batch. */
  readonly given = new Map<string, number>();
  /** Whose gradient is made before that of all else. */
  head: Place | undefined;
  readonly #shared = new Map<string, Room>();
  readonly #slots = new Map<string, Slots>();
  readonly #values = new Map<Buffer, View>();
  /** Rooms of blocks that nobody reads any more, and those of the block that is recorded. */
  readonly #free = new Set<Room>();
  #own: Room[] = [];

  constructor(
    readonly layout: Layout,
    /** Tokens of a sequence. */
    readonly window: number,
    readonly options: RecordingOptions = {},
  ) {}

  place(...refs: readonly TensorRef[]): Place {
    return this.layout.place(refs.map(parameterName));
  }

  /** What a buffer of a block holds now. */
  read(buffer: Buffer): View {
    const value = this.#values.get(buffer);
    if (value === undefined) throw new NoKernel(`the buffer ${buffer} before it is written`);
    return value;
  }

  write(buffer: Buffer, value: View): void {
    this.#values.set(buffer, value);
  }

  /** As `place`, the rows filled up to a multiple of `unit`. */
  placeRows(ref: TensorRef, unit: number): Place {
    return this.layout.place([parameterName(ref)], unit);
  }

  /** Room of its own for a value that the way back wants to see again. */
  readonly keep = (label: string, width: number, rows: RowKind = "tokens"): View => {
    const room = smallestOf(this.#free, width, rows) ?? new Room(label, width, rows);
    if (!this.#free.delete(room)) this.rooms.push(room);
    room.width = Math.max(room.width, width);
    this.#own.push(room);
    return { room, stride: width, first: 0, width };
  };

  /** Ends a block, of which what the residual stream holds is left. @param shown left for good: others than the next block read it */
  endBlock(shown: readonly View[] = []): void {
    if (!this.options.forwardOnly) return;
    const x = this.read("x");
    const kept = new Set(shown.map(({ room }) => room));
    for (const room of this.#own) if (room !== x.room && !kept.has(room)) this.#free.add(room);
    this.#own = kept.has(x.room) ? [] : [x.room];
    this.#values.clear();
    this.write("x", x);
  }

  /** Room that all operations take turns in which ask for it by this name, each within itself. */
  share(label: string, width: number): Room {
    let room = this.#shared.get(label);
    if (room === undefined) {
      room = new Room(label, width);
      this.#shared.set(label, room);
      this.rooms.push(room);
    }
    room.width = Math.max(room.width, width);
    return room;
  }

  /** The kind of rows of such mixtures. */
  slotsOf(experts: number, perToken: number): Slots {
    const key = `${experts} ${perToken}`;
    const slots = this.#slots.get(key) ?? { experts, perToken };
    this.#slots.set(key, slots);
    return slots;
  }

  /** Room for what is measured. @returns where it begins behind the gradients */
  measure(name: string, length: number, isPenalty = false): number {
    const offset = this.measuredLength;
    this.measured.push({ name, offset, length, isPenalty });
    return offset;
  }

  /** f32 of all that is measured. */
  get measuredLength(): number {
    const last = this.measured.at(-1);
    return last === undefined ? 0 : last.offset + last.length;
  }

  /** @returns its number; tables of one label are one */
  table(label: string, values: () => Float32Array): number {
    const found = this.tables.findIndex((table) => table.label === label);
    return found >= 0 ? found : this.tables.push({ label, values: values() }) - 1;
  }
}

import { tileRows } from "./gemm.js";
import { NoKernel } from "./noKernel.js";

/** What experts see: rows of the tokens that chose them, expert by expert, those of each filled up to whole tiles. */
export interface Slots {
  experts: number;
  perToken: number;
}

/** What the rows of a room are; "one" is a single row. */
export type RowKind = "tokens" | "sequences" | "one" | Slots;

/** How many rows of a kind a batch has. */
export function rowsOf(kind: RowKind, sequences: number, window: number): number {
  const tokens = sequences * window;
  // Products read four rows at a time.
  if (kind === "sequences") return Math.ceil(sequences / 4) * 4;
  if (typeof kind !== "object") return kind === "tokens" ? tokens : 1;
  const chosen = tokens * kind.perToken;
  const filling = (tileRows - 1) * Math.min(kind.experts, chosen);
  return Math.floor((chosen + filling) / tileRows) * tileRows;
}

/** f32 [rows, width] on the device; the widest of those that take turns in it decides its width. */
export class Room {
  constructor(
    readonly label: string,
    public width: number,
    readonly rows: RowKind = "tokens",
  ) {}
}

/** Columns [first, first + width) of the rows of a room, which lie `stride` f32 apart. */
export interface View {
  room: Room;
  stride: number;
  first: number;
  width: number;
}

/** All columns of a room. */
export const whole = (room: Room): View => ({ room, stride: room.width, first: 0, width: room.width });

export const isWhole = ({ stride, first, width }: View): boolean => first === 0 && width === stride;

/** Some columns of a view. */
export const columnsOf = (view: View, first: number, width: number): View => ({
  ...view,
  first: view.first + first,
  width,
});

/** Views that lie side by side in one room, as one; undefined where they do not. */
export function joined(views: readonly View[]): View | undefined {
  let end = views[0].first;
  for (const { room, first, width } of views) {
    if (room !== views[0].room || first !== end) return undefined;
    end += width;
  }
  return { ...views[0], width: end - views[0].first };
}

/** Of rooms with such rows the smallest that is wide enough, or the widest. */
export function smallestOf(rooms: Iterable<Room>, width: number, rows: RowKind): Room | undefined {
  const fitting = [...rooms].filter((one) => one.rows === rows).sort((a, b) => a.width - b.width);
  return fitting.find((one) => one.width >= width) ?? fitting.at(-1);
}

interface Gradient {
  whole: View;
  /** First columns of the parts that were written. */
  written: Set<number>;
  /** Columns that were written. */
  width: number;
}

/**
 * Where gradients lie while the steps of a model are walked back: each from the first step that adds to it to the one that reads
 * it, and after that its room is another's. The walk is made once, when a model is planned.
 */
export class Gradients {
  /** All that were needed. */
  readonly rooms: Room[] = [];
  readonly #free = new Set<Room>();
  readonly #of = new Map<Room, Gradient>();

  /** The gradient of a value, which all that read it have added to. */
  of({ room, first, width }: View): View {
    const found = this.#of.get(room);
    const isWritten = found?.written.has(first) || found?.width === found?.whole.width;
    if (found === undefined || !isWritten) throw new NoKernel(`${room.label}, which nothing reads`);
    return columnsOf(found.whole, first, width);
  }

  /** Where a gradient of a value goes, and whether it is added to what is there. */
  into({ room, stride, first, width }: View): { at: View; accumulate: boolean } {
    let gradient = this.#of.get(room);
    if (gradient === undefined) {
      gradient = {
        whole: { ...whole(this.take(stride, room.rows)), stride, width: stride },
        written: new Set(),
        width: 0,
      };
      this.#of.set(room, gradient);
    }
    const accumulate = gradient.written.has(first);
    if (!accumulate) {
      gradient.written.add(first);
      gradient.width += width;
    }
    return { at: columnsOf(gradient.whole, first, width), accumulate };
  }

  /** As `into`, for kernels that do not add: of a value that is read once. */
  first(value: View): View {
    const { at, accumulate } = this.into(value);
    if (accumulate) throw new NoKernel(`${value.room.label}, which is read more than once`);
    return at;
  }

  /** Lets go of the gradient of a value that has been read. */
  release({ room }: View): void {
    const gradient = this.#of.get(room);
    this.#of.delete(room);
    if (gradient !== undefined) this.#giveBack(gradient.whole.room);
  }

  /** The gradient of a sum is that of its terms: `term` takes it over. */
  passOn(sum: View, term: View): void {
    const gradient = this.#of.get(sum.room);
    if (gradient === undefined || this.#of.has(term.room))
      throw new NoKernel(`${term.room.label}, read beside its sum`);
    this.#of.delete(sum.room);
    this.#of.set(term.room, gradient);
  }

  /** A value that becomes its own gradient. */
  inPlace(value: View): void {
    this.#of.set(value.room, { whole: value, written: new Set([value.first]), width: value.width });
  }

  /** The smallest room that is free and wide enough; else the widest grows, else there is one more. */
  take(width: number, rows: RowKind = "tokens"): Room {
    let room = smallestOf(this.#free, width, rows);
    if (room === undefined) {
      room = new Room(`gradient ${this.rooms.length}`, width, rows);
      this.rooms.push(room);
    }
    this.#free.delete(room);
    room.width = Math.max(room.width, width);
    return room;
  }

  #giveBack(room: Room): void {
    if (this.rooms.includes(room)) this.#free.add(room);
  }
}

import type { GpuMemory } from "../../../kernels/internal.js";
import { allocateTokens, type TokenMemory, type TokenPlaces } from "./embedding.js";
import { type ModelMemory, Operations, type Rows } from "./operations.js";
import type { Pass } from "./pass.js";
import { partsLength } from "./products.js";
import type { Room, View } from "./rooms.js";
import { crossEntropy, gridOfRows } from "./rowKernels.js";
import type { Schedule } from "./schedule.js";

/** What the loss is of: rows of logits, `stride` f32 apart. */
export interface Outputs {
  logits: GpuMemory;
  rows: number;
  columns: number;
  stride: number;
}

/** A schedule in the memory of a device, for batches of so many sequences. */
export class ScheduledStep implements Pass, Disposable {
  readonly operations: Operations;
  readonly wholes: Operations;
  readonly tokens: TokenMemory;
  readonly labels: GpuMemory;
  readonly outputs: Outputs;
  readonly #rooms = new Map<Room, GpuMemory>();
  readonly #own: GpuMemory[] = [];
  #places: TokenPlaces | undefined;

  constructor(
    readonly model: ModelMemory,
    readonly schedule: Schedule,
    readonly tables: readonly GpuMemory[],
    readonly sequences: number,
  ) {
    const { rooms, window, logits, classes } = schedule;
    const tokens = sequences * window;
    this.tokens = allocateTokens(model.compute, tokens);
    this.#own.push(...Object.values(this.tokens));
    const allocate = (words: number, label: string) => {
      const memory = model.compute.allocate(words, label);
      this.#own.push(memory);
      return memory;
    };
    // Products read four rows at a time.
    const rowsOf = { tokens, sequences: Math.ceil(sequences / 4) * 4 };
    for (const room of rooms) this.#rooms.set(room, allocate(rowsOf[room.rows] * room.width, room.label));
    const rows = logits.room.rows === "tokens" ? tokens : sequences;
    this.labels = allocate(rows, "labels");
    this.outputs = { logits: this.memory(logits.room), rows, columns: classes, stride: logits.stride };
    const parts = allocate(partsLength, "parts");
    this.operations = new Operations(model, parts, tokens);
    this.wholes = new Operations(model, parts, sequences);
  }

  get window(): number {
    return this.schedule.window;
  }

  get places(): TokenPlaces {
    return this.#places!;
  }

  readonly memory = (room: Room): GpuMemory => this.#rooms.get(room)!;

  readonly rows = ({ room, stride, first }: View): Rows => ({ memory: this.memory(room), stride, offset: first });

  /** From `tokens` to the logits. */
  forward(): void {
    for (const operation of this.schedule.forward) operation.forward(this);
  }

  /** The loss of every row behind the gradients; logits become their gradient. */
  loss(): void {
    const { logits, columns: classes, stride, rows } = this.outputs;
    this.operations.dispatch(
      crossEntropy,
      { classes, stride, rows, lossOffset: this.schedule.plan.length },
      { logits, losses: this.model.gradients, labels: this.labels },
      gridOfRows(rows),
    );
  }

  /** After `forward` and `loss`. @param places those that `tokens` holds */
  backward(places: TokenPlaces): void {
    this.#places = places;
    for (const back of this.schedule.backward) back(this);
  }

  [Symbol.dispose](): void {
    for (const memory of this.#own) this.model.compute.device.free(memory);
  }
}

import type { DeviceMemory } from "../../../kernels/internal.js";
import { teacherName } from "../../models/distillation.js";
import { divergenceKernels } from "./divergenceKernels.js";
import { allocateTokens, type TokenMemory, type TokenPlaces } from "./embedding.js";
import { Memories } from "./memories.js";
import { type ModelMemory, Operations, type Rows } from "./operations.js";
import type { Pass } from "./pass.js";
import { Products, partsLength } from "./products.js";
import { type Room, rowsOf, type Slots, type View } from "./rooms.js";
import { crossEntropy, gridOfRows } from "./rowKernels.js";
import type { Schedule } from "./schedule.js";

/** What the loss is of: rows of logits, `stride` f32 apart. */
export interface Outputs {
  logits: DeviceMemory;
  rows: number;
  columns: number;
  stride: number;
}

/** A schedule in the memory of a device, for batches of so many sequences. */
export class ScheduledStep implements Pass, Disposable {
  readonly operations: Operations;
  readonly wholes: Operations;
  readonly tokens: TokenMemory;
  readonly labels: DeviceMemory;
  readonly outputs: Outputs;
  readonly #rooms = new Map<Room, DeviceMemory>();
  readonly #own: Memories;
  readonly #products: Products;
  readonly #experts = new Map<Room, Pass>();
  places!: TokenPlaces;
  /** What a teacher has of the batch. */
  taughtBy: ReadonlyMap<string, Rows> = new Map();
  /** Rows whose label is learnt; at least 1, which divides. */
  known = 1;

  constructor(
    readonly model: ModelMemory,
    readonly schedule: Schedule,
    readonly tables: readonly DeviceMemory[],
    readonly sequences: number,
  ) {
    const { rooms, window, logits, classes } = schedule;
    const tokens = sequences * window;
    this.#own = new Memories(model.compute);
    this.tokens = allocateTokens(this.#own, tokens);
    const allocate = (words: number, label: string) => this.#own.allocate(words, label);
    for (const room of rooms) {
      this.#rooms.set(room, allocate(rowsOf(room.rows, sequences, window) * room.width, room.label));
    }
    const rows = logits.room.rows === "tokens" ? tokens : sequences;
    this.labels = allocate(rows, "labels");
    this.outputs = { logits: this.memory(logits.room), rows, columns: classes, stride: logits.stride };
    const { recorder, enoughTiles } = model.compute;
    this.#products = new Products(recorder, allocate(partsLength, "parts"), enoughTiles);
    this.operations = new Operations(model, this.#products, tokens);
    this.wholes = new Operations(model, this.#products, sequences);
  }

  get window(): number {
    return this.schedule.window;
  }

  get measured(): number {
    return this.schedule.measuredOffset;
  }

  /** Where the losses of rows begin, behind what is measured. */
  get losses(): number {
    return this.measured + this.schedule.measuredLength;
  }

  readonly memory = (room: Room): DeviceMemory => this.#rooms.get(room)!;

  readonly rows = ({ room, stride, first }: View): Rows => ({ memory: this.memory(room), stride, offset: first });

  readonly given = (name: string): Rows | undefined => this.taughtBy.get(name);

  readonly ofExperts = (slots: Slots, room: Room): Pass => {
    const found = this.#experts.get(room);
    if (found !== undefined) return found;
    const { model, sequences, window } = this;
    const runs = { memory: this.memory(room), count: slots.experts };
    const operations = new Operations(model, this.#products, rowsOf(slots, sequences, window), runs);
    const pass: Pass = Object.create(this, { operations: { value: operations } });
    this.#experts.set(room, pass);
    return pass;
  };

  /** From `tokens` to the logits. */
  forward(): void {
    for (const operation of this.schedule.forward) operation.forward(this);
  }

  /** Whether the predictions of a teacher are learnt from in this batch. */
  get isTaught(): boolean {
    return this.schedule.taught !== undefined && this.taughtBy.has(teacherName);
  }

  /**
   * The loss of every row behind the gradients, and behind those how far its teacher is, where there is one; logits become the
   * gradient of both.
   */
  loss(): void {
    const { logits, columns: classes, stride, rows } = this.outputs;
    const { taught } = this.schedule;
    const teacher = this.given(teacherName);
    const params = { classes, stride, rows, known: this.known, lossOffset: this.losses };
    const buffers = { logits, losses: this.model.gradients, labels: this.labels };
    if (taught === undefined || teacher === undefined) {
      this.operations.dispatch(crossEntropy, params, buffers, gridOfRows(rows));
      return;
    }
    const { loss, share, temperature } = taught;
    this.operations.dispatch(
      divergenceKernels[loss],
      { ...params, share, temperature, teacherStride: teacher.stride },
      { ...buffers, teacher: teacher.memory },
      gridOfRows(rows),
    );
  }

  /** After `forward` and `loss`. @param places those that `tokens` holds */
  backward(places: TokenPlaces): void {
    this.places = places;
    for (const back of this.schedule.backward) back(this);
  }

  [Symbol.dispose](): void {
    this.#own[Symbol.dispose]();
  }
}

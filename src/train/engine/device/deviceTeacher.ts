import type { Compute, DeviceMemory } from "../../../kernels/internal.js";
import type { Batch, BatchArray } from "../../objective.js";
import type { Values } from "../../values.js";
import { Memories } from "./memories.js";
import type { ModelMemory, Rows } from "./operations.js";
import type { Schedule } from "./schedule.js";
import { ScheduledStep } from "./scheduledStep.js";

/** A planned model that only runs forward, and its weights. */
export interface ShownModel {
  schedule: Schedule;
  weights: Values;
}

/** A model that is learnt from, on the device of the one that learns: what it has of a batch never leaves that. */
export class DeviceTeacher {
  readonly #memory: ModelMemory;
  readonly #tables: readonly DeviceMemory[];
  #step: ScheduledStep | undefined;

  constructor(
    readonly compute: Compute,
    readonly model: ShownModel,
  ) {
    const { plan, tables, measuredLength } = model.schedule;
    const own = new Memories(compute);
    this.#tables = tables.map(({ values, label }) => own.filled(values, label));
    this.#memory = {
      compute,
      weights: own.allocate(plan.length, "weights of the teacher"),
      gradients: own.allocate(measuredLength, "what the teacher measures"),
    };
    for (const [name, offset] of plan.offsets) write(compute, this.#memory.weights, model.weights.get(name)!, offset);
  }

  /** Records a pass. @returns what it shows, by its name in a batch; overwritten by the next pass */
  show({ tokens }: Batch): ReadonlyMap<string, Rows> {
    const { compute, model } = this;
    const { schedule } = model;
    const sequences = tokens.values.length / schedule.window;
    if (this.#step?.sequences !== sequences) {
      this.#step?.[Symbol.dispose]();
      this.#step = undefined;
      this.#step = new ScheduledStep(this.#memory, schedule, this.#tables, sequences);
    }
    const step = this.#step;
    write(compute, step.tokens.tokens, tokens.values);
    step.forward();
    return new Map(Array.from(schedule.shown, ([name, view]) => [name, step.rows(view)]));
  }
}

/** What is learnt from for a batch, as rows on the device: of a teacher there, or as the batch brings it. */
export class TaughtRows {
  readonly #brought = new Map<string, { memory: DeviceMemory; length: number }>();

  constructor(
    readonly compute: Compute,
    /** Widths by name. */
    readonly given: Schedule["given"],
    readonly teacher: DeviceTeacher | undefined,
  ) {}

  of(batch: Batch): ReadonlyMap<string, Rows> {
    const isBrought = Array.from(this.given.keys()).every((name) => batch[name] !== undefined);
    const shown = isBrought ? undefined : this.teacher?.show(batch);
    const rows = new Map<string, Rows>();
    for (const [name, stride] of this.given) {
      const array = batch[name];
      const found = array === undefined ? shown?.get(name) : { memory: this.#bring(name, array), stride };
      if (found !== undefined) rows.set(name, found);
    }
    return rows;
  }

  #bring(name: string, { values }: BatchArray): DeviceMemory {
    let found = this.#brought.get(name);
    if (found?.length !== values.length) {
      if (found !== undefined) this.compute.device.free(found.memory);
      this.#brought.delete(name);
      found = { memory: this.compute.allocate(values.length, name), length: values.length };
      this.#brought.set(name, found);
    }
    write(this.compute, found.memory, values);
    return found.memory;
  }
}

function write(compute: Compute, memory: DeviceMemory, values: BatchArray["values"], offset = 0): void {
  compute.write(memory, values as Float32Array, offset);
}

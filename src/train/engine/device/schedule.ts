import type { DivergenceId } from "../../models/distillation.js";
import type { Plan } from "./layout.js";
import { NoKernel } from "./noKernel.js";
import type { Backward, Operation } from "./pass.js";
import type { Measured, Recording, Table } from "./recording.js";
import { Gradients, type Room, type View } from "./rooms.js";

/** What of a teacher's predictions is made small beside the loss of the text. */
export interface TaughtLoss {
  share: number;
  temperature: number;
  loss: DivergenceId;
}

/** A model as dispatches there and back, and the rooms that they need; for batches of any number of sequences. */
export interface Schedule {
  plan: Plan;
  window: number;
  rooms: readonly Room[];
  tables: readonly Table[];
  forward: readonly Operation[];
  /** None of a model that only runs forward. */
  backward: readonly Backward[];
  /** What lies between the gradients and the losses of rows, and how many f32 of it there are. */
  measured: readonly Measured[];
  /** Where it begins: behind the gradients, of which a model that only runs forward has none. */
  measuredOffset: number;
  measuredLength: number;
  /** Becomes its own gradient. Its columns behind `classes` fill it up. */
  logits: View;
  classes: number;
  taught?: TaughtLoss;
  /** Widths of what a teacher may give for a batch, by its name there: f32 [rows, width]. */
  given: ReadonlyMap<string, number>;
  /** What the model has for one that learns from it, by its name in the batch of that one. */
  shown: ReadonlyMap<string, View>;
}

/** What a walk through a model finds at its end. */
export interface Recorded {
  logits: View;
  classes: number;
  taught?: TaughtLoss;
  shown?: ReadonlyMap<string, View>;
}

/**
 * Plans a model: `record` walks its steps forward, then the recorded operations are walked back, which decides where gradients lie.
 * @param record gives where the logits lie and how many there are of them
 * @returns undefined for a model of which something has no kernel, or whose sizes are not those that kernels take
 */
export function scheduleOf(recording: Recording, record: () => Recorded): Schedule | undefined {
  const { layout, window } = recording;
  if (window % 4 !== 0) return undefined;
  try {
    const { logits, classes, taught, shown = new Map() } = record();
    if (!layout.isComplete || !layout.isAligned) return undefined;
    const { forwardOnly = false } = recording.options;
    const gradients = new Gradients();
    gradients.inPlace(logits);
    return {
      plan: { offsets: layout.offsets, length: layout.length },
      window,
      tables: recording.tables,
      measured: recording.measured,
      measuredOffset: forwardOnly ? 0 : layout.length,
      measuredLength: recording.measuredLength,
      forward: recording.operations,
      backward: forwardOnly ? [] : recording.operations.toReversed().map((operation) => operation.back(gradients)),
      rooms: [...recording.rooms, ...gradients.rooms],
      logits,
      classes,
      taught,
      given: recording.given,
      shown,
    };
  } catch (error) {
    if (error instanceof NoKernel) return undefined;
    throw error;
  }
}

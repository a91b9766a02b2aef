import type { Plan } from "./layout.js";
import { NoKernel } from "./noKernel.js";
import type { Backward, Operation } from "./pass.js";
import type { Measured, Recording, Table } from "./recording.js";
import { Gradients, type Room, type View } from "./rooms.js";

/** A model as dispatches there and back, and the rooms that they need; for batches of any number of sequences. */
export interface Schedule {
  plan: Plan;
  window: number;
  rooms: readonly Room[];
  tables: readonly Table[];
  forward: readonly Operation[];
  backward: readonly Backward[];
  /** What lies between the gradients and the losses of rows, and how many f32 of it there are. */
  measured: readonly Measured[];
  measuredLength: number;
  /** Becomes its own gradient. Its columns behind `classes` fill it up. */
  logits: View;
  classes: number;
}

/**
 * Plans a model: `record` walks its steps forward, then the recorded operations are walked back, which decides where gradients lie.
 * @param record gives where the logits lie and how many there are of them
 * @returns undefined for a model of which something has no kernel, or whose sizes are not those that kernels take
 */
export function scheduleOf(
  recording: Recording,
  record: () => { logits: View; classes: number },
): Schedule | undefined {
  const { layout, window } = recording;
  if (window % 4 !== 0) return undefined;
  try {
    const { logits, classes } = record();
    if (!layout.isComplete || !layout.isAligned) return undefined;
    const gradients = new Gradients();
    gradients.inPlace(logits);
    return {
      plan: { offsets: layout.offsets, length: layout.length },
      window,
      tables: recording.tables,
      measured: recording.measured,
      measuredLength: recording.measuredLength,
      forward: recording.operations,
      backward: recording.operations.toReversed().map((operation) => operation.back(gradients)),
      rooms: [...recording.rooms, ...gradients.rooms],
      logits,
      classes,
    };
  } catch (error) {
    if (error instanceof NoKernel) return undefined;
    throw error;
  }
}

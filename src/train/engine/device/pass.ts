import type { DeviceMemory } from "../../../kernels/internal.js";
import type { TokenMemory, TokenPlaces } from "./embedding.js";
import type { ModelMemory, Operations, Rows } from "./operations.js";
import type { Gradients, Room, Slots, View } from "./rooms.js";

/** What a step of a model is on a device: its dispatches forward and back. */
export interface Operation {
  forward(pass: Pass): void;
  /** Finds the gradients that it reads and writes their rooms; called once, in the order of the way back. */
  back(gradients: Gradients): Backward;
}

/** Records the dispatches of one step on the way back. */
export type Backward = (pass: Pass) => void;

/** What operations work with: a schedule in the memory of a device, for batches of one shape. */
export interface Pass {
  readonly model: ModelMemory;
  /** On rows of tokens, and on rows of whole sequences. */
  readonly operations: Operations;
  readonly wholes: Operations;
  readonly sequences: number;
  /** Tokens of a sequence. */
  readonly window: number;
  readonly tokens: TokenMemory;
  /** Of the tokens of the batch; on the way back only. */
  readonly places: TokenPlaces;
  /** Of the schedule, by their numbers. */
  readonly tables: readonly DeviceMemory[];
  /** Where what is measured begins among the gradients. */
  readonly measured: number;
  readonly memory: (room: Room) => DeviceMemory;
  readonly rows: (view: View) => Rows;
  /** What a teacher has of the batch, by its name there; undefined where there is none. */
  readonly given: (name: string) => Rows | undefined;
  /** The same for rows of experts, whose runs lie in a room of their own. */
  readonly ofExperts: (slots: Slots, runs: Room) => Pass;
}

import type { DeviceMemory } from "../../../kernels/internal.js";
import type { Memories } from "./memories.js";
import { bins, countDigits, cutBelow, digits, pickDigit, stretchWords } from "./projectionKernels.js";

/** Entries that compete, as stretches of an array in the order in which the first of equals stays, and how many stay. */
export interface DeviceBudget {
  stretches: readonly { offset: number; length: number }[];
  keep: number;
}

/** Entries per workgroup, roughly. */
const share = 4096;
const maxGroups = 512;

/** The projection onto sparse vectors on the device: of each budget the `keep` largest magnitudes stay, the others become 0. */
export class DeviceProjection {
  readonly #budgets: number;
  readonly #stretches: DeviceMemory;
  readonly #searches: DeviceMemory;
  readonly #counts: DeviceMemory;
  readonly #grid: [number, number];

  /** @param memories where what it needs is taken, and with which it goes */
  constructor(
    readonly memories: Memories,
    budgets: readonly DeviceBudget[],
  ) {
    const words: number[] = [];
    let longest = 1;
    for (const [budget, { stretches }] of budgets.entries()) {
      let first = 0;
      for (const { offset, length } of stretches) {
        words.push(offset, length, budget, first);
        first += length;
        longest = Math.max(longest, length);
      }
    }
    this.#budgets = budgets.length;
    this.#stretches = memories.filled(Uint32Array.from(words), "stretches");
    const searches = Uint32Array.from(budgets.flatMap(({ keep }) => [0, 0, keep, keep]));
    this.#searches = memories.filled(searches, "searches");
    this.#counts = memories.allocate(bins * budgets.length, "digits");
    this.#grid = [Math.min(maxGroups, Math.ceil(longest / share)), words.length / stretchWords];
  }

  /** @param counters how many entries are other than 0 after is added to the first word */
  record(values: DeviceMemory, counters: DeviceMemory): void {
    const { recorder } = this.memories.compute;
    const [counts, stretches, searches] = [this.#counts, this.#stretches, this.#searches];
    recorder.makeRoom(2 * digits.length + 1, 0);
    for (const [i, digit] of digits.entries()) {
      recorder.run(countDigits, digit, { counts, values, stretches, searches }, this.#grid);
      const { word, shift } = digit;
      recorder.run(pickDigit, { word, shift, isFirst: i === 0 ? 1 : 0 }, { counts, searches }, [this.#budgets]);
    }
    recorder.run(cutBelow, { counter: 0 }, { values, counters, stretches, searches }, this.#grid);
  }
}

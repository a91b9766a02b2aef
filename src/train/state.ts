import { UsageError } from "../core/index.js";
import type { FloatArray } from "./values.js";

export type StateArray = FloatArray | Uint8Array | Int32Array;

/**
 * What a part of a training run must keep to go on exactly: numbers and arrays in a tree, so that one writer stores the
 * state of every part. Keys hold no "/".
 */
export interface State {
  [key: string]: number | string | boolean | StateArray | State;
}

/** Whether an entry of a state is a tree of its own. */
export const isStateTree = (value: unknown): value is State =>
  typeof value === "object" && value !== null && !ArrayBuffer.isView(value);

export const isStateArray = (value: unknown): value is StateArray => ArrayBuffer.isView(value);

/**
 * Copies what `from` holds into the arrays of `into`, and takes over its numbers.
 * @throws UsageError naming the first entry that is missing or of another kind or length
 */
export function restoreState(into: State, from: State, path = "state"): void {
  for (const [key, target] of Object.entries(into)) {
    const value = Object.hasOwn(from, key) ? from[key] : undefined;
    const at = `${path}/${key}`;
    const wrong = () => new UsageError(`${at} does not fit; the state belongs to a run with other settings`);
    if (isStateArray(target)) {
      if (!isStateArray(value) || value.constructor !== target.constructor || value.length !== target.length)
        throw wrong();
      target.set(value);
    } else if (typeof target === "object") {
      if (typeof value !== "object" || isStateArray(value)) throw wrong();
      restoreState(target, value, at);
    } else {
      if (value === undefined || typeof value !== typeof target) throw wrong();
      into[key] = value;
    }
  }
}

/** Named arrays as a state; they are shared, not copied. */
export const stateOf = (values: ReadonlyMap<string, StateArray>): State => Object.fromEntries(values);

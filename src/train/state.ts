import type { FloatArray } from "./values.js";

export type StateArray = FloatArray | Uint8Array | Int32Array;

/**
 * What a part of a training run must keep to go on exactly: numbers and arrays in a tree, so that one writer stores the
 * state of every part. Keys must not hold "/".
 */
export interface State {
  [key: string]: number | string | boolean | StateArray | State;
}

export const isStateArray = (value: State[string]): value is StateArray => ArrayBuffer.isView(value);

/** Copies what `from` holds into the arrays of `into`, and takes over its numbers. Both have the same keys. */
export function restoreState(into: State, from: State): void {
  for (const [key, value] of Object.entries(from)) {
    const target = into[key];
    if (isStateArray(value)) {
      if (!isStateArray(target) || target.length !== value.length) throw new RangeError(`state ${key} does not fit`);
      target.set(value);
    } else if (typeof value === "object") {
      if (typeof target !== "object" || isStateArray(target)) throw new RangeError(`state ${key} does not fit`);
      restoreState(target, value);
    } else {
      into[key] = value;
    }
  }
}

/** Named arrays as a state; they are shared, not copied. */
export const stateOf = (values: ReadonlyMap<string, StateArray>): State => Object.fromEntries(values);

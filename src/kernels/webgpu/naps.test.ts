import { describe, expect, test } from "vitest";
import { type Turns, withNaps } from "./naps.js";

/** Something that arrives, or fails, in the turn after so many naps. */
function arrivingAfter(naps: number, error?: Error) {
  let napped = 0;
  let settle = () => {};
  const arrives = new Promise<string>((resolve, reject) => {
    settle = () => (error === undefined ? resolve("here") : reject(error));
  });
  const turns: Turns = {
    turn: async () => {
      if (napped >= naps) settle();
      await new Promise((resolve) => setImmediate(resolve));
    },
    nap: () => void napped++,
  };
  return { arrives, turns, napped: () => napped };
}

describe("waiting with naps", () => {
  test("naps once in each turn until it has arrived", async () => {
    const { arrives, turns, napped } = arrivingAfter(7);
    expect(await withNaps(arrives, turns)).toBe("here");
    expect(napped()).toBe(7);
  });

  test("what is there in the first turn is not slept for", async () => {
    const { arrives, turns, napped } = arrivingAfter(0);
    expect(await withNaps(arrives, turns)).toBe("here");
    expect(napped()).toBe(0);
  });

  test("a failure ends the wait and reaches its caller alone", async () => {
    const unhandled: unknown[] = [];
    const listener = (reason: unknown) => void unhandled.push(reason);
    process.on("unhandledRejection", listener);
    const { arrives, turns } = arrivingAfter(3, new Error("lost"));
    await expect(withNaps(arrives, turns)).rejects.toThrow("lost");
    await new Promise((resolve) => setImmediate(resolve));
    process.off("unhandledRejection", listener);
    expect(unhandled).toEqual([]);
  });
});

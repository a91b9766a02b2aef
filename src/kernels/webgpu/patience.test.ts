import { describe, expect, test } from "vitest";
import { Patience } from "./patience.js";

describe("patience", () => {
  /** A GPU that is done `ms` after it was asked for, and timers that come `lateMs` late. */
  function waits(lateMs: number) {
    let now = 0;
    const slept: number[] = [];
    const patience = new Patience(
      async (ms) => {
        slept.push(ms);
        now += ms + lateMs;
      },
      () => now,
    );
    /** @returns how much longer than needed it took */
    const wait = async (ms: number) => {
      const done = now + ms;
      await patience.wait(async () => {
        now = Math.max(now, done);
      });
      return now - done;
    };
    return { wait, slept };
  }

  test("waits of one length are slept through once they are known, and never missed", async () => {
    const { wait, slept } = waits(1);
    for (let i = 0; i < 20; i++) expect(await wait(4.5)).toBe(0);
    expect(slept).toEqual(Array.from({ length: 12 }, () => 3));
  });

  test("short ones are not slept through", async () => {
    const { wait, slept } = waits(1);
    for (let i = 0; i < 20; i++) await wait(2.2);
    expect(slept).toEqual([]);
  });

  test("after one that was missed it sleeps less, and longer again when waits have been long for a while", async () => {
    const { wait, slept } = waits(1);
    for (let i = 0; i < 9; i++) await wait(6.5);
    expect(slept).toEqual([5]);
    expect(await wait(2)).toBeGreaterThan(0);
    slept.length = 0;
    for (let i = 0; i < 8; i++) expect(await wait(6.5)).toBe(0);
    expect(Math.max(...slept)).toBeLessThan(5);
    await wait(6.5);
    expect(slept.at(-1)).toBe(5);
  });
});

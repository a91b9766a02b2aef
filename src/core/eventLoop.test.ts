import { afterEach, expect, test, vi } from "vitest";

afterEach(() => {
  vi.unstubAllGlobals();
  vi.resetModules();
});

test.each([
  ["setImmediate", false],
  ["a message channel, as in browsers", true],
])("nextTurn through %s lets a timer run", async (_name, withoutImmediate) => {
  if (withoutImmediate) vi.stubGlobal("setImmediate", undefined);
  const { nextTurn } = await import("./eventLoop.js");
  let fired = false;
  setTimeout(() => {
    fired = true;
  }, 0);
  // Counted, not timed: turns that let timers run are slow enough for it on a busy machine as well.
  for (let turns = 0; !fired && turns < 1_000_000; turns++) await nextTurn();
  expect(fired).toBe(true);
});

test("breathe lets an abort in, even between awaits that resolve at once", async () => {
  const { breathe } = await import("./eventLoop.js");
  const controller = new AbortController();
  setTimeout(() => controller.abort(new Error("enough")), 1);
  let units = 0;
  const work = async () => {
    for (; ; units++) await breathe(controller.signal);
  };
  await expect(work()).rejects.toThrow("enough");
  expect(units).toBeGreaterThan(0);
});

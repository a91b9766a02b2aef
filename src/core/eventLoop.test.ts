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
  const deadlineMs = performance.now() + 1000;
  while (!fired && performance.now() < deadlineMs) await nextTurn();
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

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

import { afterEach, expect, test, vi } from "vitest";
import { GenerationClock } from "./timings.js";

afterEach(() => vi.restoreAllMocks());

test("figures come from the work alone; the first step counts for decodeMs, not for the speed", async () => {
  let nowMs = 1000;
  vi.spyOn(performance, "now").mockImplementation(() => nowMs);
  const work = (elapsedMs: number) => async () => {
    nowMs += elapsedMs;
    return elapsedMs;
  };
  const clock = new GenerationClock(50);
  expect(await clock.prefill(work(100))).toBe(100);
  expect(clock.timings()).toMatchObject({ decodeSteps: 0, firstStepMs: undefined, decodeTokensPerSecond: undefined });
  for (const elapsedMs of [40, 10, 10]) {
    nowMs += 5000;
    await clock.step(work(elapsedMs));
  }
  expect(clock.timings()).toEqual({
    promptTokens: 50,
    prefillMs: 100,
    prefillTokensPerSecond: 500,
    decodeSteps: 3,
    firstStepMs: 40,
    decodeMs: 60,
    decodeTokensPerSecond: 100,
  });
});

import { expect, test } from "vitest";
import { mostRuns, wholeRounds } from "./attentionRuns.js";

test.each([
  { keys: 520, wanted: 8, round: 32, run: 64, runs: 9 },
  { keys: 512, wanted: 8, round: 32, run: 64, runs: 8 },
  { keys: 520, wanted: 16, round: 64, run: 64, runs: 9 },
  { keys: 1, wanted: 8, round: 32, run: 32, runs: 1 },
  // Rounded down these would be 257 runs, of which only 256 can be joined.
  { keys: 256 * 32 + 1, wanted: 256, round: 32, run: 64, runs: 129 },
])("$keys keys in $wanted runs of rounds of $round are $runs runs of $run", ({ keys, wanted, round, run, runs }) => {
  expect(wholeRounds(keys, wanted, round)).toBe(run);
  expect(Math.ceil(keys / run)).toBe(runs);
  expect(runs).toBeLessThanOrEqual(mostRuns);
});

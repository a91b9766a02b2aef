import { afterEach, expect, test, vi } from "vitest";
import type { ProgressEvent } from "../core/index.js";
import { progressOn } from "./progress.js";

const event = (done: number, more: Partial<ProgressEvent> = {}): ProgressEvent => ({
  stage: "calibrate",
  done,
  total: 4,
  unit: "windows",
  elapsedMs: done * 1000.25,
  etaMs: (4 - done) * 1000.25,
  ...more,
});

function recorder(isTTY: boolean, columns = 80) {
  const written: string[] = [];
  return { written, stream: { isTTY, columns, write: (text: string) => written.push(text) } };
}

afterEach(() => vi.useRealTimers());

test("on a terminal: one line, redrawn in place, cut to the width, taken away at the end", () => {
  const { written, stream } = recorder(true, 60);
  const sink = progressOn(stream);
  sink.clear();
  expect(written).toEqual([]);
  sink.show(event(1));
  expect(written[0]).toBe(`\rcalibrate  ${"█".repeat(6)}${"░".repeat(18)}  25 %  1/4 windows  0:0\u001b[K`);
  sink.clear();
  expect(written[1]).toBe("\r\x1b[K");
});

test("a terminal without a size counts as one of 80 columns", () => {
  const { written, stream } = recorder(true, 0);
  progressOn(stream).show(event(1));
  expect(written[0].endsWith("1/4 windows  0:03 left\u001b[K")).toBe(true);
});

test.each([
  ["a terminal without escape codes", true, { term: "dumb", json: true }],
  ["a file", false, { term: "xterm" }],
])("%s gets lines of text: one every five seconds, and the last of each stage", (_, isTTY, options) => {
  vi.useFakeTimers({ toFake: ["performance"] });
  const { written, stream } = recorder(isTTY);
  const sink = progressOn(stream, options);
  sink.show(event(1));
  vi.advanceTimersByTime(4999);
  sink.show(event(2));
  vi.advanceTimersByTime(1);
  sink.show(event(3, { detail: "layer 3" }));
  sink.show(event(4, { detail: "layer 4" }));
  sink.show(event(1, { stage: "write" }));
  sink.show(event(4, { stage: "write" }));
  sink.clear();
  expect(written).toEqual([
    "calibrate   75 %  3/4 windows  0:01 left  layer 3\n",
    "calibrate  100 %  4/4 windows  in 0:04\n",
    "write  100 %  4/4 windows  in 0:04\n",
  ]);
});

test("a stage without a total counts up", () => {
  const { written, stream } = recorder(true);
  progressOn(stream).show(event(3_000_000, { total: undefined, unit: "bytes", elapsedMs: 2000 }));
  expect(written[0]).toBe("\rcalibrate  3 MB  0:02\x1b[K");
});

test("a detail cannot drive the terminal", () => {
  const { written, stream } = recorder(true, 200);
  progressOn(stream).show(event(1, { detail: "x\u001b[2Jy" }));
  expect(written[0]).toContain("x\\u001b[2Jy");
});

test("for programs: JSON lines, one per stage and second, and the last of each stage", () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  const { written, stream } = recorder(false);
  const sink = progressOn(stream, { json: true });
  sink.show(event(1));
  sink.show(event(2));
  sink.show(event(4));
  sink.show(event(1, { stage: "write" }));
  sink.show(event(2, { stage: "write" }));
  vi.advanceTimersByTime(1000);
  sink.show(event(3, { stage: "write" }));
  const lines = written.map((line) => JSON.parse(line));
  expect(lines.map(({ stage, done }) => [stage, done])).toEqual([
    ["calibrate", 1],
    ["calibrate", 4],
    ["write", 1],
    ["write", 3],
  ]);
  expect(lines[0]).toEqual({ stage: "calibrate", done: 1, total: 4, unit: "windows", elapsedMs: 1000, etaMs: 3001 });
  expect(written.every((line) => line.endsWith("}\n"))).toBe(true);
});

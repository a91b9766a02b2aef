import { expect, it } from "vitest";
import { memorySource } from "./memory.js";
import { readAhead } from "./readAhead.js";

const bytes = Uint8Array.from({ length: 1003 }, (_, i) => (i * 31) % 251);

/** A source that answers in a later turn, and writes down what it was asked for. */
function slow() {
  const memory = memorySource("slow", bytes);
  const asked: string[] = [];
  const seen = { now: 0, most: 0 };
  const source = {
    ...memory,
    async read(offset: number, length: number) {
      asked.push(`${offset}+${length}`);
      seen.most = Math.max(seen.most, ++seen.now);
      await new Promise(setImmediate);
      seen.now--;
      return memory.read(offset, length);
    },
  };
  return { source, asked, seen };
}

it("a reader that goes from end to end, with steps back, asks for every block once and for four at a time", async () => {
  const { source, asked, seen } = slow();
  const reader = readAhead(source, bytes.slice(0, 40), 100);
  // A sample of the beginning first, as loading does.
  await reader.read(0, 64);
  for (let offset = 0; offset < bytes.length; offset += 7) {
    const length = Math.min(7, bytes.length - offset);
    expect(await reader.read(offset, length)).toEqual(bytes.slice(offset, offset + length));
    await reader.read(Math.max(0, offset - 90), 7);
  }
  expect(asked).toEqual([
    "40+100",
    "140+100",
    "240+100",
    "340+100",
    "440+100",
    "540+100",
    "640+100",
    "740+100",
    "840+100",
    "940+63",
  ]);
  expect(seen.most).toBe(4);
});

it("reads across blocks into the given array, and nothing ahead of a reader that jumps", async () => {
  const { source, asked } = slow();
  const reader = readAhead(source, new Uint8Array(), 100);
  const into = new Uint8Array(20);
  expect(await reader.read(590, 20, into)).toBe(into);
  expect(into).toEqual(bytes.slice(590, 610));
  expect(asked.slice(0, 2)).toEqual(["500+100", "600+100"]);
  asked.length = 0;
  await reader.read(150, 10);
  expect(asked).toEqual(["100+100"]);
});

it("keeps six blocks and no more", async () => {
  const { source, asked } = slow();
  const reader = readAhead(source, new Uint8Array(), 100);
  for (const block of [9, 7, 5, 3, 1, 8]) await reader.read(100 * block, 1);
  await reader.read(700, 1);
  expect(asked).toHaveLength(6);
  await reader.read(600, 1);
  await reader.read(900, 1);
  expect(asked).toHaveLength(8);
});

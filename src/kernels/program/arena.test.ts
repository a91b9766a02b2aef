import { expect, it } from "vitest";
import { DeviceError } from "../../core/index.js";
import { Arena } from "./arena.js";
import { heapStart } from "./layout.js";
import type { Machine } from "./machine.js";

/** A machine that has less memory than it may give. */
function smallMachine(mostBytes: number): Machine {
  let buffer = new ArrayBuffer(heapStart + 65536);
  const memory = {
    get buffer() {
      return buffer;
    },
    grow(byteLength: number) {
      const grown = buffer.byteLength + Math.ceil(byteLength / 65536) * 65536;
      if (grown > mostBytes) throw new RangeError("no more");
      const next = new ArrayBuffer(grown);
      new Uint8Array(next).set(new Uint8Array(buffer));
      buffer = next;
    },
    run() {},
  };
  return { memoryLimit: 2 ** 30, openMemory: async () => memory } as unknown as Machine;
}

it("a memory that could not grow still gives what it has, and grows as far as it can", async () => {
  const arena = await Arena.create(smallMachine(heapStart + 2 ** 20));
  const before = arena.allocate(1000);
  for (const byteLength of [2 ** 21, 2 ** 25]) expect(() => arena.allocate(byteLength)).toThrow(DeviceError);
  const after = arena.allocate(1000);
  expect(after - before).toBeLessThan(2000);
  const large = arena.allocate(2 ** 19);
  arena.bytes(large, 2 ** 19).fill(7);
  expect(() => arena.allocate(2 ** 19)).toThrow(DeviceError);
  for (const offset of [before, large, after]) arena.release(offset);
  arena.allocate(2 ** 20 - 2 ** 17);
});

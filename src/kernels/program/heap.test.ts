import fc from "fast-check";
import { expect, it } from "vitest";
import { Heap } from "./heap.js";

it("ranges never overlap, keep their order of merging, and everything freed can be had again", () => {
  const steps = fc.array(fc.record({ free: fc.boolean(), pick: fc.nat(), size: fc.integer({ min: 1, max: 5000 }) }), {
    maxLength: 200,
  });
  fc.assert(
    fc.property(steps, (actions) => {
      const heap = new Heap(1024);
      const held: { offset: number; size: number }[] = [];
      for (const { free, pick, size } of actions) {
        if (free && held.length > 0) heap.release(held.splice(pick % held.length, 1)[0].offset);
        else {
          const offset = heap.allocate(size);
          expect(offset % 64).toBe(0);
          for (const other of held)
            expect(offset + size <= other.offset || other.offset + other.size <= offset).toBe(true);
          held.push({ offset, size });
        }
      }
      for (const { offset } of held) heap.release(offset);
      // All free ranges have met: one as large as everything fits without growing.
      const used = heap.top - 1024;
      if (used > 64) expect(heap.fits(used - 64, heap.top)).toBe(true);
    }),
    { seed: 1 },
  );
});

it("refuses to free what is not allocated", () => {
  const heap = new Heap(0);
  const offset = heap.allocate(10);
  heap.release(offset);
  expect(() => heap.release(offset)).toThrow("nothing is allocated");
});

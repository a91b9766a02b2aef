import { expect, test } from "vitest";

const changed = (at: number, value: number) => Float32Array.of(1, 2, 3, 0, Number.NaN).with(at, value);

test("typed arrays are equal when they are of one kind and every element is the same", () => {
  const values = changed(0, 1);
  expect(values).toEqual(changed(0, 1));
  expect(new Map([["w", { values }]])).toEqual(new Map([["w", { values: changed(0, 1) }]]));
  expect(values.subarray(1)).toEqual(Float32Array.of(0, 2, 3, 0, Number.NaN).subarray(1));
  // A NaN is a NaN, whatever its other bits are.
  expect(new Float32Array(Uint32Array.of(0x7fc00001).buffer)).toEqual(Float32Array.of(Number.NaN));
});

test.each<[string, ArrayBufferView]>([
  ["another first element", changed(0, 2)],
  ["another last element", changed(4, 0)],
  ["another zero", changed(3, -0)],
  ["one element less", changed(0, 1).subarray(0, 4)],
  ["another kind", Float64Array.from(changed(0, 1))],
  ["the same bytes as another kind", new Uint32Array(changed(0, 1).buffer)],
])("%s makes them differ", (_, other) => {
  expect(changed(0, 1)).not.toEqual(other);
  expect(new Map([["w", changed(0, 1)]])).not.toEqual(new Map([["w", other]]));
});

import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { ggmlTypeByName, ggmlTypeName } from "../../src/io/gguf/ggmlTypes.js";

/** Two random blocks of each type, and their values as the `gguf` package of llama.cpp (0.19, numpy) decodes them. */
const golden: Record<string, { blocks: string; values: string }> = JSON.parse(
  readFileSync(new URL("../golden/gguf-blocks.json", import.meta.url), "utf8"),
);
const bytesOf = (base64: string) => new Uint8Array(Buffer.from(base64, "base64"));

it.each(Object.entries(golden))("%s decodes as in llama.cpp", (name, { blocks, values }) => {
  const { decode, blockBytes, blockSize } = ggmlTypeByName.get(name)!;
  const [bytes, expected] = [bytesOf(blocks), new Float32Array(bytesOf(values).buffer)];
  expect(bytes.length).toBe(2 * blockBytes);
  expect(expected.length).toBe(2 * blockSize);
  const out = new Float32Array(expected.length);
  for (const block of [0, 1]) decode!(bytes, block * blockBytes, out, block * blockSize);
  const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  expect(largest).toBeGreaterThan(0);
  // The other implementation rounds each step to f32.
  for (const [i, x] of out.entries())
    expect(Math.abs(x - expected[i]), `value ${i}`).toBeLessThanOrEqual(2e-7 * largest);
});

it("Q8_1 and Q8_K, which the other implementation does not decode, are codes times a scale", () => {
  const out = new Float32Array(256);
  const q81 = new Uint8Array(36);
  q81.set([0, 0x38, 9, 9, 1, 255, 128], 0);
  ggmlTypeByName.get("Q8_1")!.decode!(q81, 0, out, 0);
  expect([...out.subarray(0, 4)]).toEqual([0.5, -0.5, -64, 0]);
  const q8K = new Uint8Array(292);
  new DataView(q8K.buffer).setFloat32(0, 0.25, true);
  q8K.set([4, 252], 4);
  ggmlTypeByName.get("Q8_K")!.decode!(q8K, 0, out, 0);
  expect([...out.subarray(0, 3)]).toEqual([1, -1, 0]);
});

it("types that are not read have a name", () => {
  expect(ggmlTypeName(16)).toBe("IQ2_XXS");
  expect(ggmlTypeName(6)).toBe("Q5_0");
  expect(ggmlTypeName(999)).toMatch(/number 999/);
});

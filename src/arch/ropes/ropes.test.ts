import { describe, expect, test } from "vitest";
import { ropeFrequencies, ropeTables } from "./index.js";

describe("rotary frequencies", () => {
  test("default: theta^(−2i/headDim)", () => {
    const frequencies = ropeFrequencies({ type: "default", theta: 10000 }, 8);
    expect([...frequencies]).toEqual([1, 0.1, 0.01, 0.001].map((f) => expect.closeTo(f, 12)));
  });

  test("linear: positions divided by the factor", () => {
    const frequencies = ropeFrequencies({ type: "linear", theta: 10000, factor: 4 }, 8);
    expect([...frequencies]).toEqual([0.25, 0.025, 0.0025, 0.00025].map((f) => expect.closeTo(f, 12)));
  });

  test("llama3: by wavelength, as in Meta's published code", () => {
    const rope = {
      type: "llama3" as const,
      theta: 500000,
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositions: 8192,
    };
    const frequencies = ropeFrequencies(rope, 128);
    const plain = ropeFrequencies({ type: "default", theta: 500000 }, 128);
    let mixed = 0;
    for (const [i, frequency] of plain.entries()) {
      const wavelength = (2 * Math.PI) / frequency;
      let expected = frequency / 8;
      if (wavelength < 8192 / 4) expected = frequency;
      else if (wavelength <= 8192) {
        const smooth = (8192 / wavelength - 1) / (4 - 1);
        expected = ((1 - smooth) * frequency) / 8 + smooth * frequency;
        mixed++;
      }
      expect(frequencies[i]).toBeCloseTo(expected, 15);
    }
    expect(mixed).toBeGreaterThan(3);
    expect(frequencies[0]).toBe(1);
    expect(frequencies[63]).toBeCloseTo(plain[63] / 8, 18);
  });
});

test("tables hold cos and sin of position times frequency", () => {
  const { cos, sin } = ropeTables({ type: "default", theta: 100 }, 4, 3);
  expect([...cos]).toEqual([0, 0, 1, 0.1, 2, 0.2].map((angle) => Math.fround(Math.cos(angle))));
  expect([...sin]).toEqual([0, 0, 1, 0.1, 2, 0.2].map((angle) => Math.fround(Math.sin(angle))));
});

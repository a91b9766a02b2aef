import { describe, expect, test } from "vitest";
import { parseModelConfig } from "../modelConfig.js";
import golden from "./golden.json" with { type: "json" };
import { type RopeSpec, ropeAttentionFactor, ropeFrequencies, ropeReach, ropeTables } from "./index.js";

const plain: RopeSpec = { type: "default", theta: 10000 };

describe("rotary frequencies", () => {
  test("default: theta^(−2i/width)", () => {
    const frequencies = ropeFrequencies(plain, 8, 1);
    expect([...frequencies]).toEqual([1, 0.1, 0.01, 0.001].map((f) => expect.closeTo(f, 12)));
  });

  // Configs and what transformers 5.17 makes of them, in f32.
  test.each(golden)("$name: as in transformers", ({ config, length, frequencies, attentionFactor }) => {
    const { rope } = parseModelConfig(config, "config.json");
    const actual = ropeFrequencies(rope, 16, length);
    expect(actual).toHaveLength(frequencies.length);
    for (const [i, frequency] of frequencies.entries()) {
      expect(Math.abs(actual[i] / frequency - 1), `pair ${i}`).toBeLessThan(2e-6);
    }
    expect(ropeAttentionFactor(rope)).toBeCloseTo(attentionFactor, 6);
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
    const frequencies = ropeFrequencies(rope, 128, 1);
    const unscaled = ropeFrequencies({ type: "default", theta: 500000 }, 128, 1);
    let mixed = 0;
    for (const [i, frequency] of unscaled.entries()) {
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
    expect(frequencies[63]).toBeCloseTo(unscaled[63] / 8, 18);
  });

  test("contexts that share their frequencies have one reach", () => {
    const ropeOf = (name: string) =>
      parseModelConfig(golden.find((one) => one.name === name)!.config, "config.json").rope;
    const long = ropeOf("longrope in a long context");
    expect(ropeReach(long, 1)).toBe(ropeReach(long, 64));
    expect(ropeReach(long, 65)).toBe(ropeReach(long, 1024));
    expect(ropeReach(long, 65)).not.toBe(ropeReach(long, 64));
    const dynamic = ropeOf("dynamic beyond it");
    expect(ropeReach(dynamic, 1)).toBe(ropeReach(dynamic, 128));
    expect(ropeReach(dynamic, 129)).not.toBe(ropeReach(dynamic, 130));
    expect(ropeReach(plain, 1)).toBe(ropeReach(plain, 1000));
  });

  test("a list of factors has one for every pair", () => {
    const { config } = golden.find(({ name }) => name === "longrope in a long context")!;
    const { long_factor: [_, ...shorter] = [] } = config.rope_parameters;
    expect(() =>
      parseModelConfig(
        { ...config, rope_parameters: { ...config.rope_parameters, long_factor: shorter } },
        "config.json",
      ),
    ).toThrow(/long_factor.*7 entries.*expected 8/);
  });
});

test("tables hold cos and sin of position times frequency, times the attention factor", () => {
  const angles = [0, 0, 1, 0.1, 2, 0.2];
  const { cos, sin } = ropeTables({ type: "default", theta: 100 }, 4, 3);
  expect([...cos]).toEqual(angles.map((angle) => Math.fround(Math.cos(angle))));
  expect([...sin]).toEqual(angles.map((angle) => Math.fround(Math.sin(angle))));
  const scaled = ropeTables({ type: "default", theta: 100 }, 4, 3, { factor: 1.5 });
  expect([...scaled.cos]).toEqual(angles.map((angle) => Math.fround(1.5 * Math.cos(angle))));
  expect([...scaled.sin]).toEqual(angles.map((angle) => Math.fround(1.5 * Math.sin(angle))));
});

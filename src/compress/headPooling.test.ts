import { describe, expect, it } from "vitest";
import { Random } from "../core/index.js";
import { poolHeads } from "./headPooling.js";

const random = new Random(3);
/** 8 heads of 4 channels, 6 inputs. */
const weight = Float32Array.from({ length: 8 * 4 * 6 }, () => Math.round(random.normal() * 64) / 64);

describe("pooling of key and value heads", () => {
  it("as many groups as heads changes no bit", () => {
    expect(poolHeads(weight, 8, 8)).toEqual(weight);
  });

  it("equal heads inside each group stay what they were", () => {
    const repeated = Float32Array.from(weight, (_, i) => weight[Math.floor(i / 48) * 48 + (i % 24)]);
    const pooled = poolHeads(repeated, 8, 4);
    expect(pooled).toHaveLength(4 * 24);
    pooled.forEach((w, i) => {
      expect(w).toBe(weight[Math.floor(i / 24) * 48 + (i % 24)]);
    });
  });

  it("is the mean over consecutive heads, for matrices and biases", () => {
    expect([...poolHeads(Float32Array.of(1, 2, 3, 4, 10, 20, 30, 40), 4, 2)]).toEqual([2, 3, 20, 30]);
    expect([...poolHeads(Float32Array.of(1, 2, 3, 6), 4, 1)]).toEqual([3]);
  });

  it("in two stages is the same as at once", () => {
    const twice = poolHeads(poolHeads(weight, 8, 4), 4, 2);
    poolHeads(weight, 8, 2).forEach((w, i) => {
      expect(twice[i]).toBeCloseTo(w, 6);
    });
  });

  it("commutes with rotary embedding: pool then rotate is rotate then pool", () => {
    const rotated = (keys: Float32Array) =>
      keys.map((k, i) => {
        const channel = i % 4;
        const angle = 5 * 100 ** (-(channel % 2) / 2);
        const partner = keys[i + (channel < 2 ? 2 : -2)];
        return k * Math.cos(angle) + (channel < 2 ? -1 : 1) * partner * Math.sin(angle);
      });
    const keys = weight.slice(0, 32);
    const after = rotated(poolHeads(keys, 8, 2));
    poolHeads(rotated(keys), 8, 2).forEach((k, i) => {
      expect(k).toBeCloseTo(after[i], 5);
    });
  });

  it("refuses what does not divide", () => {
    expect(() => poolHeads(weight, 8, 3)).toThrow(/do not divide into 3 groups/);
    expect(() => poolHeads(weight, 8, 0)).toThrow(/0 groups/);
  });
});

import { describe, expect, it } from "vitest";
import { allStatistics, syntheticLayer } from "../../test/support/layers.js";
import { InputStatistics, type StatisticId, StatisticsAccumulator } from "./statistics.js";

describe("statistics of inputs", () => {
  // 300 columns and 700 tokens cross the tiles of the gram and its chunks of tokens.
  const cols = 300;
  const { inputs } = syntheticLayer(3, 1, cols, { tokens: 700 });
  const accumulator = new StatisticsAccumulator(cols, allStatistics);
  for (const [start, end] of [
    [0, 1],
    [1, 400],
    [400, 700],
  ]) {
    accumulator.add(inputs.subarray(start * cols, end * cols));
  }
  const statistics = accumulator.finish();
  const column = (c: number) => Array.from({ length: 700 }, (_, t) => inputs[t * cols + c]);
  const dot = (a: number[], b: number[]) => a.reduce((sum, v, i) => sum + v * b[i], 0);

  it("equal the plain sums over all batches", () => {
    expect(statistics.tokens).toBe(700);
    const gram = statistics.get("gram");
    for (const [i, j] of [
      [0, 0],
      [0, 299],
      [191, 192],
      [299, 3],
      [250, 250],
    ]) {
      expect(gram[i * cols + j]).toBeCloseTo(dot(column(i), column(j)), 8);
      expect(gram[j * cols + i]).toBe(gram[i * cols + j]);
    }
    for (const c of [0, 150, 299]) {
      expect(statistics.get("columnSquares")[c]).toBeCloseTo(dot(column(c), column(c)), 8);
      expect(statistics.get("columnAbsMax")[c]).toBe(Math.max(...column(c).map(Math.abs)));
      expect(statistics.get("columnAbsMean")[c]).toBeCloseTo(column(c).reduce((s, v) => s + Math.abs(v), 0) / 700, 10);
    }
  });

  it("column squares can be had from the gram alone, other statistics only when collected", () => {
    const fromGram = new InputStatistics(cols, 700, { gram: statistics.get("gram") });
    expect(fromGram.has("columnSquares")).toBe(true);
    expect(fromGram.get("columnSquares")[7]).toBe(statistics.get("gram")[7 * cols + 7]);
    expect(() => fromGram.get("columnAbsMax")).toThrow(/columnAbsMax was not collected/);
  });

  it("divided channels: the sums of the divided inputs", () => {
    const x = Float32Array.from({ length: 60 }, (_, i) => Math.sin(i * i));
    const factors = Float32Array.of(0.5, 2, 4);
    const all: StatisticId[] = ["columnSquares", "columnAbsMax", "columnAbsMean", "gram"];
    const sum = (values: Float32Array) => {
      const sums = new StatisticsAccumulator(3, all);
      sums.add(values);
      return sums.finish();
    };
    const divided = sum(x).dividedBy(factors);
    const expected = sum(x.map((value, i) => value / factors[i % 3]));
    expect(divided.tokens).toBe(20);
    for (const id of all) {
      expect(divided.get(id)).toHaveLength(expected.get(id).length);
      for (const [i, value] of expected.get(id).entries()) expect(divided.get(id)[i]).toBeCloseTo(value, 5);
    }
  });

  it("derived values are made once", () => {
    let made = 0;
    const make = () => ++made;
    const empty = new InputStatistics(4, 0);
    expect([empty.derive("a", make), empty.derive("a", make), empty.derive("b", make)]).toEqual([1, 1, 2]);
  });

  it("refuses batches that are not finite or not whole rows", () => {
    const two = new StatisticsAccumulator(2, ["gram"]);
    expect(() => two.add(Float32Array.of(1, 2, 3, Number.NaN))).toThrow(/channel 1 of a calibration batch is NaN/);
    expect(() => two.add(Float32Array.of(1, 2, 3))).toThrow(/no whole rows of 2/);
  });
});

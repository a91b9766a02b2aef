import { describe, expect, it } from "vitest";
import { outputError, statisticsOf, syntheticLayer } from "../../test/support/layers.js";
import { Random } from "../core/index.js";
import type { CoupledGroup, Layer } from "./contract.js";
import { chooseUnits, keepUnits, keepUnitsOfVector, repairColumns, unitMask, unitScores } from "./structured.js";

const random = new Random(51);
const matrix = (rows: number, cols: number): Layer => ({
  weight: Float32Array.from({ length: rows * cols }, () => random.normal()),
  rows,
  cols,
});
const silu = (x: number) => x / (1 + Math.exp(-x));
const apply = ({ weight, rows, cols }: Layer, x: ArrayLike<number>, w: ArrayLike<number> = weight) =>
  Float64Array.from({ length: rows }, (_, r) => {
    let y = 0;
    for (let c = 0; c < cols; c++) y += w[r * cols + c] * x[c];
    return y;
  });

/** gate, up [24, 10], down [10, 24]. */
const gate = matrix(24, 10);
const up = matrix(24, 10);
const down = matrix(10, 24);
const mlp: CoupledGroup = {
  count: 24,
  members: [
    { layer: gate, axis: "rows" },
    { layer: up, axis: "rows" },
    { layer: down, axis: "columns" },
  ],
};
/** 4 query heads and 2 key and value heads of 3 channels. */
const heads: CoupledGroup = {
  count: 2,
  members: [
    { layer: matrix(12, 8), axis: "rows" },
    { layer: matrix(6, 8), axis: "rows" },
    { layer: matrix(6, 8), axis: "rows" },
    { layer: matrix(8, 12), axis: "columns" },
  ],
};
const absolute = (group: CoupledGroup) => group.members.map(({ layer }) => layer.weight.map(Math.abs));

describe("neurons", () => {
  const kept = chooseUnits(unitScores(mlp, absolute(mlp)), 0.25);

  it("the weakest go: sum of squares over gate row, up row and down column", () => {
    const strength = Array.from({ length: 24 }, (_, n) => {
      let sum = 0;
      for (let c = 0; c < 10; c++) sum += gate.weight[n * 10 + c] ** 2 + up.weight[n * 10 + c] ** 2;
      for (let r = 0; r < 10; r++) sum += down.weight[r * 24 + n] ** 2;
      return sum;
    });
    expect(kept).toHaveLength(18);
    const weakestKept = Math.min(...kept.map((n) => strength[n]));
    expect(strength.filter((s) => s < weakestKept)).toHaveLength(6);
  });

  it("removed and zeroed give the same outputs", () => {
    const x = Float64Array.from({ length: 10 }, () => random.normal());
    const [g, u, d] = mlp.members.map((member) => keepUnits(member, 24, kept));
    expect([g.rows, u.rows, d.cols]).toEqual([18, 18, 18]);
    const hidden = (a: Float64Array, b: Float64Array) => a.map((v, i) => silu(v) * b[i]);
    const removed = apply(d, hidden(apply(g, x), apply(u, x)));
    const [mg, mu, md] = mlp.members.map((member) => {
      const mask = unitMask(member, 24, kept);
      return member.layer.weight.map((w, i) => w * mask[i]);
    });
    const zeroed = apply(down, hidden(apply(gate, x, mg), apply(up, x, mu)), md);
    removed.forEach((y, i) => {
      expect(y).toBeCloseTo(zeroed[i], 12);
    });
  });

  it("biases and masks shrink along", () => {
    const bias = Float32Array.from({ length: 24 }, (_, i) => i);
    expect([...keepUnitsOfVector(bias, 24, kept)]).toEqual(kept);
    const mask = Uint8Array.from(down.weight, (_, i) => i % 2);
    const smaller = keepUnits({ layer: { ...down, mask }, axis: "columns" }, 24, kept);
    smaller.mask!.forEach((m, i) => {
      expect(m).toBe(mask[Math.floor(i / 18) * 24 + kept[i % 18]]);
    });
  });

  it("counts: rounded up to a multiple, never none", () => {
    const scores = Float32Array.from({ length: 24 }, (_, i) => i);
    expect(chooseUnits(scores, 0.5, 8)).toHaveLength(16);
    expect(chooseUnits(scores, 0.999)).toEqual([23]);
    expect(chooseUnits(scores, 0.99999999)).toEqual([23]);
    expect(chooseUnits(new Float32Array(4), 0.5)).toEqual([2, 3]);
  });
});

describe("heads", () => {
  it("a key and value head goes with all query heads that read it", () => {
    const kept = [1];
    const [q, k, v, o] = heads.members.map((member) => keepUnits(member, 2, kept));
    expect([q.rows, k.rows, v.rows, o.cols]).toEqual([6, 3, 3, 6]);
    expect(q.weight).toEqual(heads.members[0].layer.weight.slice(6 * 8));
    expect(k.weight).toEqual(heads.members[1].layer.weight.slice(3 * 8));
    expect([...o.weight.subarray(0, 6)]).toEqual([...heads.members[3].layer.weight.subarray(6, 12)]);
    unitMask(heads.members[0], 2, kept).forEach((keep, i) => {
      expect(keep).toBe(i < 6 * 8 ? 0 : 1);
    });
    unitMask(heads.members[3], 2, kept).forEach((keep, i) => {
      expect(keep).toBe(i % 12 < 6 ? 0 : 1);
    });
  });

  it("a head of zeros is the first to go", () => {
    const zeroed = heads.members.map((member) => {
      const mask = unitMask(member, 2, [0]);
      return { ...member, layer: { ...member.layer, weight: member.layer.weight.map((w, i) => w * mask[i]) } };
    });
    const group = { count: 2, members: zeroed };
    expect(chooseUnits(unitScores(group, absolute(group)), 0.5)).toEqual([0]);
  });

  it("refuses what does not divide", () => {
    expect(() => unitMask({ layer: matrix(7, 4), axis: "rows" }, 2, [0])).toThrow(/7 rows do not divide into 2/);
  });
});

describe("repair after removal", () => {
  it("leaves less output error than zeroing, and only removed columns are zero", () => {
    const layer = syntheticLayer(52, 16, 32);
    const statistics = statisticsOf(layer);
    const member = { layer, axis: "columns" } as const;
    const kept = chooseUnits(unitScores({ count: 8, members: [member] }, [layer.weight.map(Math.abs)]), 0.5);
    const mask = unitMask(member, 8, kept);
    const repaired = repairColumns(member, 8, kept, statistics).weight;
    repaired.forEach((w, i) => {
      expect(w === 0).toBe(mask[i] === 0);
    });
    const zeroed = layer.weight.map((w, i) => w * mask[i]);
    expect(outputError(layer, repaired)).toBeLessThan(outputError(layer, zeroed));
    expect(() => repairColumns({ layer, axis: "rows" }, 8, kept, statistics)).toThrow(/only removed columns/);
  });
});

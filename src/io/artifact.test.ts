import { describe, expect, it } from "vitest";
import { FormatError } from "../core/index.js";
import { type Artifact, checkArtifactLayers, parseArtifact, readArtifact, serializeArtifact } from "./artifact.js";
import { memoryFiles } from "./memory.js";

const cut = { threshold: 0.25, sparsity: 0.5 };
const projections = {
  q_proj: cut,
  k_proj: cut,
  v_proj: cut,
  o_proj: cut,
  gate_proj: cut,
  up_proj: cut,
  down_proj: cut,
};
const artifact: Artifact = {
  rarefy: 1,
  weights: "q8",
  activationSparsity: {
    method: "teal",
    estimator: "absQuantile",
    allocation: "greedy",
    sparsity: 0.5,
    prefill: "dense",
    layers: [{ projections }, { projections, gate: cut }],
    calibration: { textSha256: "ab".repeat(32), windows: 32, window: 512, seed: 0 },
  },
  recipe: { nested: [1, null, "x"] },
  results: [{ perplexity: 37.5 }],
  source: { location: "org/name@main", configSha256: "cd".repeat(32) },
};
const change = (fields: object) => ({ ...artifact, activationSparsity: { ...artifact.activationSparsity, ...fields } });
const parse = (raw: unknown) => parseArtifact(raw, "m/rarefy.json");

describe("rarefy.json", () => {
  it("reads back what it writes", async () => {
    const files = memoryFiles("m", new Map([["rarefy.json", serializeArtifact(artifact)]]));
    expect(await readArtifact({ files, location: "m" })).toEqual(artifact);
    expect(await readArtifact({ files: memoryFiles("m", new Map()), location: "m" })).toBeUndefined();
    expect(parse({ rarefy: 1 })).toEqual({ rarefy: 1 });
  });

  it("writes equal artifacts as equal bytes, in whatever order they were put together", () => {
    const { results, ...rest } = artifact;
    expect(serializeArtifact({ ...rest, results })).toEqual(serializeArtifact(artifact));
    expect(serializeArtifact(parse(JSON.parse(JSON.stringify({ results, ...rest }))))).toEqual(
      serializeArtifact(artifact),
    );
  });

  it.each(["dense", "secondHalf", { denseFirst: 4 }])("takes prefill %j", (prefill) => {
    expect(parse(change({ prefill })).activationSparsity?.prefill).toEqual(prefill);
  });

  const wrong: [string, unknown, RegExp][] = [
    ["another version", { ...artifact, rarefy: 2 }, /rarefy: version 2; expected version 1.*update rarefy/],
    ["no version", { weights: "q8" }, /version undefined/],
    ["no object", [], /m\/rarefy.json: /],
    ["an unknown field", { ...artifact, weightSparsity: {} }, /weightSparsity/],
    ["unknown weights", { ...artifact, weights: "q2" }, /weights/],
    [
      "a negative threshold",
      change({ layers: [{ projections: { ...projections, k_proj: { ...cut, threshold: -1 } } }] }),
      /layers.0.projections.k_proj.threshold/,
    ],
    [
      "an infinite threshold",
      change({
        layers: [{ projections: { ...projections, k_proj: { ...cut, threshold: Number.POSITIVE_INFINITY } } }],
      }),
      /k_proj.threshold/,
    ],
    ["a missing projection", change({ layers: [{ projections: { q_proj: cut } }] }), /layers.0.projections/],
    ["too much sparsity", change({ sparsity: 1.5 }), /activationSparsity.sparsity/],
    ["an unknown method", change({ method: "magic" }), /activationSparsity.method/],
    ["a negative prefix", change({ prefill: { denseFirst: -1 } }), /activationSparsity.prefill/],
    [
      "a text hash that is none",
      change({ calibration: { textSha256: "x", windows: 1, window: 1, seed: 0 } }),
      /textSha256/,
    ],
    ["a result that is no object", { ...artifact, results: [1] }, /results.0/],
  ];
  it.each(wrong)("refuses %s", (_, raw, message) => {
    expect(() => parse(raw)).toThrow(FormatError);
    expect(() => parse(raw)).toThrow(message);
  });

  it("is not written when it could not be read", () => {
    expect(() => serializeArtifact(change({ sparsity: Number.NaN }) as Artifact)).toThrow(/sparsity/);
  });

  it("must fit the layers of the model", () => {
    expect(() => checkArtifactLayers(artifact, 2, "rarefy.json")).not.toThrow();
    expect(() => checkArtifactLayers({ rarefy: 1 }, 6, "rarefy.json")).not.toThrow();
    expect(() => checkArtifactLayers(artifact, 6, "rarefy.json")).toThrow(/2 layers; expected 6/);
  });
});

import { describe, expect, it } from "vitest";
import { FormatError } from "../core/index.js";
import { checkArtifactMaps, parseArtifact, readArtifact, serializeArtifact } from "./artifact.js";
import { type Artifact, compressionOf, trainingOf } from "./artifactSchema.js";
import { memoryFiles } from "./memory.js";

const cut = { threshold: 0.25, sparsity: 0.5 };
const maps = {
  q_proj: cut,
  k_proj: cut,
  v_proj: cut,
  o_proj: cut,
  gate_proj: cut,
  up_proj: cut,
  down_proj: cut,
};
const artifact: Artifact = {
  rarefy: 2,
  weights: "q8",
  activationSparsity: {
    method: "teal",
    estimator: "absQuantile",
    allocation: "greedy",
    sparsity: 0.5,
    prefill: "dense",
    layers: [{ maps }, { maps, gate: cut }],
    calibration: { textSha256: "ab".repeat(32), windows: 32, window: 512, seed: 0 },
  },
  origin: { training: { nested: [1, null, "x"] } },
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
    expect(parse({ rarefy: 2 })).toEqual({ rarefy: 2 });
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
    ["another version", { ...artifact, rarefy: 3 }, /rarefy: version 3; expected version 2 or 1.*update rarefy/],
    ["no version", { weights: "q8" }, /version missing/],
    ["no object", [], /m\/rarefy.json: /],
    ["an unknown field", { ...artifact, weightSparsity: {} }, /weightSparsity/],
    ["unknown weights", { ...artifact, weights: "q2" }, /weights/],
    [
      "a negative threshold",
      change({ layers: [{ maps: { ...maps, k_proj: { ...cut, threshold: -1 } } }] }),
      /layers.0.maps.k_proj.threshold/,
    ],
    [
      "an infinite threshold",
      change({
        layers: [{ maps: { ...maps, k_proj: { ...cut, threshold: Number.POSITIVE_INFINITY } } }],
      }),
      /k_proj.threshold/,
    ],
    ["an origin of two kinds", { ...artifact, origin: { training: {}, compression: {} } }, /origin/],
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

  it("names the field that is wrong within its origin", () => {
    const matrices = { q_proj: { rows: 4, cols: 4, sparsity: 0.5, nonZeros: 8, relativeError: Number.NaN } };
    const compression = { recipe: {}, version: "0", job: "ef".repeat(32), store: "packed", sourceWeights: 16 };
    const origin = { compression: { ...compression, layers: [{ source: 0, matrices }] } };
    const wrongly = { ...artifact, origin } as unknown as Artifact;
    const field = /^rarefy\.json: origin\.compression\.layers\.0\.matrices\.q_proj\.relativeError: /;
    expect(() => serializeArtifact(wrongly)).toThrow(field);
  });

  it("must fit the layers and the maps of the model", () => {
    const roles = (names: readonly string[], layers = 2) => Array.from({ length: layers }, () => new Set(names));
    const all = Object.keys(maps);
    expect(() => checkArtifactMaps(artifact, roles(all), "rarefy.json")).not.toThrow();
    expect(() => checkArtifactMaps({ rarefy: 2 }, roles(all, 6), "rarefy.json")).not.toThrow();
    expect(() => checkArtifactMaps(artifact, roles(all, 6), "rarefy.json")).toThrow(/2 layers; expected 6/);
    expect(() => checkArtifactMaps(artifact, roles(all.slice(1)), "rarefy.json")).toThrow(
      /layers\.0\.maps: there is no "q_proj"; expected k_proj, v_proj/,
    );
  });
});

describe("rarefy.json of version 1", () => {
  const { origin: _origin, activationSparsity, ...same } = artifact;
  const layers = [{ projections: maps }, { projections: maps, gate: cut }];
  const old = { ...same, rarefy: 1, activationSparsity: { ...activationSparsity, layers } };
  const matrices = { q_proj: { rows: 4, cols: 4, sparsity: 0.5, nonZeros: 8 } };
  const compression = {
    version: "0.1.0",
    job: "ef".repeat(32),
    store: "packed",
    sourceWeights: 16,
    layers: [{ source: 0, matrices }],
  };

  it("is read as what it says, and written as version 2", () => {
    const trained = parse({ ...old, recipe: { nested: [1, null, "x"] } });
    expect(trained).toEqual(artifact);
    expect(trainingOf(trained)).toEqual({ nested: [1, null, "x"] });
    const recipe = { version: 1, stages: [{ type: "poolHeads", kvHeads: 1 }] };
    const compressed = parse({ ...old, recipe, compression });
    expect(compressionOf(compressed)).toEqual({ recipe, ...compression });
    expect(trainingOf(compressed)).toBeUndefined();
    expect(parse(JSON.parse(new TextDecoder().decode(serializeArtifact(compressed))))).toEqual(compressed);
    expect(parse({ rarefy: 1 })).toEqual({ rarefy: 2 });
  });

  it.each([
    [
      "a missing projection",
      { ...old, activationSparsity: { ...activationSparsity, layers: [{ projections: { q_proj: cut } }] } },
      /layers.0.projections/,
    ],
    ["a recipe that is no object", { rarefy: 1, recipe: 3 }, /recipe: not a JSON object/],
    ["what version 2 has", { ...old, origin: { training: {} } }, /origin/],
  ])("refuses %s", (_, raw, message) => {
    expect(() => parse(raw)).toThrow(FormatError);
    expect(() => parse(raw)).toThrow(message);
  });
});

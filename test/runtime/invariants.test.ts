import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type BlockGates, parseModelConfig } from "../../src/arch/index.js";
import { gatedParts } from "../../src/arch/internal.js";
import { type ExitClassifiers, memorySource } from "../../src/io/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import {
  loadModel,
  type Model,
  type OffloadOptions,
  type OffloadShape,
  offloadLayouts,
  writeOffloaded,
} from "../../src/model/index.js";
import {
  attentionPatterns,
  collect,
  exitRules,
  generate,
  kvPolicies,
  layersDraft,
  lookupDraft,
  modelDraft,
  parseAttention,
  parseExits,
  parseKv,
  parseRoute,
  parseSparsity,
  routeRules,
  Sequence,
  type SequenceOptions,
  sparsityKinds,
} from "../../src/runtime/index.js";
import { withBudget } from "../../src/runtime/internal.js";
import { normals } from "../contract/harness.js";
import { architectureGolden, load, logitsOf, path } from "../golden/golden.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { gatesLayers } from "../support/gatesLayers.js";
import { prunesContext } from "../support/prunesContext.js";
import { arbitraryText, distance } from "./naiveLlama.js";

/**
 * What every method of the tables must hold: with parameters that cover the text it is the dense model; tokens run one by one
 * are as those run together; more budget never reads less; the same call gives the same bits.
 */
const length = 36;
const text = arbitraryText(length);
let backend: Backend;
let model: Model;
let dense: Float32Array[];
beforeAll(async () => {
  backend = await openBackend("wasm", { threads: 1 });
  model = await load(path("arch/llama"), backend, "f32");
  dense = await logitsOf(model, text);
});
afterAll(() => backend[Symbol.dispose]());

/** Of every pattern: parameters that cover the text, and two that do not, the second of which shows more. */
const patterns: Record<string, { covering: string; less: string; more: string }> = {
  causal: { covering: "causal", less: "causal", more: "causal" },
  window: { covering: "window:size=40", less: "window:size=5", more: "window:size=9,sinks=2" },
  longformer: {
    covering: "longformer:window=40",
    less: "longformer:window=4,global=2",
    more: "longformer:window=8,global=4",
  },
  strided: { covering: "strided:stride=40", less: "strided:stride=6", more: "strided:stride=3" },
  fixed: { covering: "fixed:stride=40,columns=0", less: "fixed:stride=6,columns=1", more: "fixed:stride=6,columns=3" },
  dilated: {
    covering: "dilated:window=40,dilation=1",
    less: "dilated:window=4,dilation=3",
    more: "dilated:window=8,dilation=3",
  },
  bigbird: {
    covering: "bigbird:block=4,global=9,window=1,random=0",
    less: "bigbird:block=4,global=1,window=1,random=1",
    more: "bigbird:block=4,global=1,window=3,random=1",
  },
  quest: {
    covering: "quest:budget=40,page=4,dense=0",
    less: "quest:budget=12,page=4,dense=0,prompts=sparse",
    more: "quest:budget=20,page=4,dense=0,prompts=sparse",
  },
  // What they choose of longer prompts is in dynamicAttention.test.ts; single tokens see everything.
  "vertical-slash": {
    covering: "vertical-slash:vertical=64,slash=64",
    less: "vertical-slash:vertical=0,slash=1",
    more: "vertical-slash",
  },
  "block-sparse": { covering: "block-sparse:blocks=1", less: "block-sparse:blocks=1", more: "block-sparse" },
  minference: { covering: "minference:budget=128", less: "minference:budget=128", more: "minference" },
  xattention: {
    covering: "xattention:share=100",
    less: "xattention:share=1,block=32,stride=4,sinks=0",
    more: "xattention:share=95,block=32,stride=4",
  },
};
/** What they show depends on the pass. */
const byPass = ["vertical-slash", "block-sparse", "minference", "xattention"];
/** The same of every KV policy. What codes do to the numbers is in codedKv.test.ts: in 8 bits they are near the dense ones. */
const policies: Record<string, { covering: string; near?: number; less: string; more: string }> = {
  full: { covering: "full", less: "full", more: "full" },
  int8: { covering: "int8", near: 0.02, less: "int4", more: "int8" },
  int4: { covering: "int4", near: 0.3, less: "recent:budget=20,bits=4", more: "int4" },
  kivi: { covering: "kivi:residual=40", less: "kivi:residual=1", more: "kivi:residual=20" },
  recent: { covering: "recent:budget=36", less: "recent:budget=5", more: "recent:budget=20" },
  sinks: { covering: "sinks:budget=36", less: "sinks:budget=6", more: "sinks:budget=20" },
  h2o: { covering: "h2o:budget=36", less: "h2o:budget=6", more: "h2o:budget=20" },
  random: { covering: "random:budget=36", less: "random:budget=6", more: "random:budget=20" },
  snapkv: { covering: "snapkv:budget=36", less: "snapkv:budget=6,window=4", more: "snapkv:budget=20,window=4" },
  pyramidkv: {
    covering: "pyramidkv:budget=200",
    less: "pyramidkv:budget=6,window=4",
    more: "pyramidkv:budget=20,window=4",
  },
};

/** Of every rule of early exit: that nobody leaves, that everybody does behind the first layer. */
const rules: Record<string, { nobody: string; everybody: string }> = {
  never: { nobody: "never", everybody: "top:least=0" },
  top: { nobody: "top:least=1", everybody: "top:least=0" },
  gap: { nobody: "gap:least=1", everybody: "gap:least=0" },
  svm: { nobody: "svm", everybody: "svm" },
  crf: { nobody: "crf", everybody: "crf" },
};
/** Of the two layers, what lets everybody leave behind the first, or nobody. */
const trainedFor = (bias: number): ExitClassifiers => {
  const line = { gap: 0, top: 0, bias };
  const transitions: [[number, number], [number, number]] = [
    [0, 0],
    [0, 0],
  ];
  return {
    layers: [{ layers: 1, agreement: 0.5, svm: line }],
    crf: { ...line, transitions, probed: [1] },
    calibration: { textSha256: "0".repeat(64), windows: 1, window: 8 },
  };
};

/** Runs the text in passes of `rows` tokens; the last logits, and bytes of keys and values read by single tokens behind it. */
async function run(options: SequenceOptions, rows: number) {
  using sequence = new Sequence(model, length + 4, { passTokens: rows, ...options });
  let last: Float32Array | undefined;
  for (let done = 0; done < length; done += rows) {
    const logits = await sequence.run(text.subarray(done, done + rows));
    last = await backend.read(logits);
    backend.release(logits);
  }
  backend.takeCounters();
  for (let n = 0; n < 4; n++) backend.release(await sequence.run(text.subarray(n, n + 1)));
  return { last: last!, bytes: backend.takeCounters().kvBytesRead };
}

const tables = [
  {
    what: "an attention pattern",
    names: Object.keys(attentionPatterns),
    cases: patterns as typeof policies,
    options: (written: string): SequenceOptions => ({ attention: parseAttention(written) }),
    alike: true,
  },
  {
    what: "a KV policy",
    // What `pruned` keeps is in the model: see below.
    names: Object.keys(kvPolicies).filter((name) => name !== "pruned"),
    cases: policies,
    options: (written: string): SequenceOptions => ({ kv: parseKv(written) }),
    alike: false,
  },
];

describe.each(tables)("$what", ({ names, cases, options, alike }) => {
  test("of the table is here", () => expect(Object.keys(cases)).toEqual(names));

  test.each(names)("%s that covers everything is the dense model", async (name) => {
    const { covering, near = 1e-4 } = cases[name];
    for (const rows of [1, 5, length]) {
      const { last } = await run(options(covering), rows);
      expect(distance(last, dense[length - 1]), `passes of ${rows}`).toBeLessThan(near);
    }
  });

  test.each(names)("%s reads no less with a larger budget, and the same every time", async (name) => {
    const { less, more } = cases[name];
    const [small, again, large] = [
      await run(options(less), length),
      await run(options(less), length),
      await run(options(more), length),
    ];
    expect(again).toEqual(small);
    expect(large.bytes).toBeGreaterThanOrEqual(small.bytes);
  });

  test.each(alike ? names.filter((name) => !byPass.includes(name)) : [])(
    "%s gives tokens that run one by one what it gives them together",
    async (name) => {
      const one = await run(options(cases[name].less), 1);
      for (const rows of [5, length]) {
        expect(distance((await run(options(cases[name].less), rows)).last, one.last)).toBeLessThan(1e-4);
      }
    },
  );
});

describe("a model that prunes its context", () => {
  /** By how much of a bias its layers find tokens needed. */
  async function pruned(bias: number, rows: number) {
    using held = await loadModel(await prunesContext("llama", { bias }), backend, { weights: "f32" });
    using sequence = new Sequence(held, length + 4, { kv: parseKv("pruned"), passTokens: rows });
    let last = new Float32Array();
    for (let done = 0; done < length; done += rows) {
      const logits = await sequence.run(text.subarray(done, done + rows));
      last = (await backend.read(logits)) as Float32Array<ArrayBuffer>;
      backend.release(logits);
    }
    backend.takeCounters();
    for (let n = 0; n < 4; n++) backend.release(await sequence.run(text.subarray(n, n + 1)));
    return { last, bytes: backend.takeCounters().kvBytesRead };
  }

  test("that needs every token is the dense model", async () => {
    for (const rows of [1, 5, length])
      expect(distance((await pruned(1e6, rows)).last, dense[length - 1]), `passes of ${rows}`).toBeLessThan(1e-4);
  });

  test("that needs more tokens reads no less, the same every time, one by one what it reads together", async () => {
    const [small, again, large] = [await pruned(0.2, length), await pruned(0.2, length), await pruned(1, length)];
    expect(again).toEqual(small);
    expect(large.bytes).toBeGreaterThan(small.bytes);
    for (const rows of [1, 5]) {
      const other = await pruned(0.2, rows);
      expect(distance(other.last, small.last)).toBeLessThan(1e-4);
      expect(other.bytes).toBe(small.bytes);
    }
  });
});

describe.each(Object.keys(gatedParts) as BlockGates["units"][])("a model with gates in front of %s", (units) => {
  /** By how much of a bias its gates let tokens through. */
  async function gated(bias: number, rows: number) {
    using held = await loadModel(await gatesLayers("llama", { units, bias }), backend, { weights: "f32" });
    using sequence = new Sequence(held, length + 4);
    let last = new Float32Array();
    for (let done = 0; done < length; done += rows) {
      const logits = await sequence.run(text.subarray(done, done + rows));
      last = (await backend.read(logits)) as Float32Array<ArrayBuffer>;
      backend.release(logits);
    }
    const counts = held.takeGateCounts!();
    backend.takeCounters();
    for (let n = 0; n < 4; n++) backend.release(await sequence.run(text.subarray(n, n + 1)));
    const { weightBytesRead, kvBytesRead } = backend.takeCounters();
    return { last, share: counts.met / counts.offered, bytes: weightBytesRead + kvBytesRead };
  }

  test("all of which are open is the dense model", async () => {
    for (const rows of [1, 5, length]) {
      const { last, share } = await gated(1e6, rows);
      expect(distance(last, dense[length - 1]), `passes of ${rows}`).toBeLessThan(1e-4);
      expect(share).toBe(1);
    }
  });

  test("that lets more tokens through reads no less, the same every time, one by one what it reads together", async () => {
    const [small, again, large] = [await gated(0, length), await gated(0, length), await gated(1.5, length)];
    expect(again).toEqual(small);
    expect(large.share).toBeGreaterThan(small.share);
    expect(large.bytes).toBeGreaterThan(small.bytes);
    for (const rows of [1, 5]) {
      const other = await gated(0, rows);
      expect(distance(other.last, small.last)).toBeLessThan(1e-4);
      expect(other).toMatchObject({ share: small.share, bytes: small.bytes });
    }
  });
});

/** Of every kind of activation sparsity: parameters with which all counts, and two that do not, the second of which keeps more. */
const kinds: Record<string, { covering: string; less: string; more: string }> = {
  dense: { covering: "dense", less: "dense", more: "dense" },
  exact: { covering: "exact", less: "exact", more: "exact" },
  topk: { covering: "topk:zeros=0", less: "topk:zeros=0.7", more: "topk:zeros=0.4" },
  blocks: { covering: "blocks:keep=8,of=8", less: "blocks:keep=2,of=8", more: "blocks:keep=5,of=8" },
  mass: { covering: "mass:share=1", less: "mass:share=0.6", more: "mass:share=0.9" },
};

describe("a kind of activation sparsity", () => {
  /** The last logits, bytes and skipped inputs of tokens one by one, or together. */
  async function sparse(written: string, rows = 1) {
    const thresholds = parseSparsity(written).of(model.config.layers);
    using sequence = new Sequence(model, length, { thresholds });
    backend.takeCounters();
    let last = new Float32Array();
    for (let done = 0; done < 8; done += rows) {
      const logits = await sequence.run(text.subarray(done, done + rows));
      last = (await backend.read(logits)) as Float32Array<ArrayBuffer>;
      backend.release(logits);
    }
    return { last, ...backend.takeCounters() };
  }

  test("of the table is here", () => expect(Object.keys(kinds)).toEqual(Object.keys(sparsityKinds)));

  test.each(Object.keys(kinds))(
    "%s: with all inputs it is the dense model, more of them read more, the same every time",
    async (name) => {
      const { covering, less, more } = kinds[name];
      const [whole, all, small, again, large] = [
        await sparse("dense"),
        await sparse(covering),
        await sparse(less),
        await sparse(less),
        await sparse(more),
      ];
      expect(all.last).toEqual(whole.last);
      expect(again).toEqual(small);
      expect(large.weightBytesRead).toBeGreaterThanOrEqual(small.weightBytesRead);
      expect(large.inputsSkipped / (large.inputs || 1)).toBeLessThanOrEqual(small.inputsSkipped / (small.inputs || 1));
      expect(distance((await sparse(less, 8)).last, small.last)).toBeLessThan(1e-4);
    },
  );
});

describe("a rule of early exit", () => {
  test("of the table is here", () => expect(Object.keys(rules)).toEqual(Object.keys(exitRules)));

  test.each(Object.keys(rules).flatMap((name) => ["exact", "propagate"].map((fill) => [name, fill] as const)))(
    "%s, %s: where nobody leaves it is the whole model, where all do it runs half of it, and the same every time",
    async (name, fill) => {
      const runs: Float32Array[][] = [];
      const sizes: number[] = [];
      for (const [written, bias] of [
        [rules[name].nobody, -1],
        [rules[name].everybody, 1],
        [rules[name].everybody, 1],
        ["never", 0],
      ] as const) {
        const exits = parseExits(`${written}${written.includes(":") ? "," : ":"}fill=${fill}`, trainedFor(bias));
        using sequence = new Sequence(model, length, { exits });
        backend.release(await sequence.run(text.subarray(0, 8)));
        backend.takeCounters();
        const rows: Float32Array[] = [];
        for (let at = 8; at < 14; at++) {
          const logits = await sequence.run(text.subarray(at, at + 1));
          rows.push(await backend.read(logits));
          backend.release(logits);
        }
        runs.push(rows);
        sizes.push(backend.takeCounters().weightBytesRead);
      }
      const [nobody, everybody, again, whole] = runs;
      expect(nobody).toEqual(whole);
      expect(again).toEqual(everybody);
      expect(everybody).not.toEqual(whole);
      // A look that nobody leaves by costs the output matrix.
      const head = 4 * model.config.vocabSize * model.config.hiddenSize;
      expect(sizes[0] - sizes[3]).toBe(rules[name].nobody === "never" ? 0 : 6 * head);
      expect(sizes[1]).toBeLessThan(sizes[3]);
    },
  );
});

describe("a layout of a model larger than memory", () => {
  /** Of every layout: a model that it suits. */
  const layouts: Record<string, { family: string; change: object }> = {
    neurons: { family: "llama", change: { hidden_act: "relu" } },
    inputs: { family: "llama", change: {} },
    experts: { family: "olmoe", change: {} },
  };
  test("of the table is here", () => expect(Object.keys(layouts)).toEqual(offloadLayouts));

  test.each(Object.keys(layouts))(
    "%s: with any room it is the model in memory, more room never reads more",
    async (name) => {
      const { family, change } = layouts[name];
      const checkpoint = await MemoryCheckpoint.golden(family);
      checkpoint.config = { ...checkpoint.config, ...change };
      const { spec } = parseModelConfig(checkpoint.config, "config.json");
      const shape: OffloadShape = { weights: "f32", layout: name as OffloadShape["layout"], bundled: true };
      const parts: Uint8Array[] = [];
      const sink = { write: async (bytes: Uint8Array) => void parts.push(bytes.slice()) };
      await writeOffloaded(checkpoint, spec, shape, sink, () => undefined);
      const source = memorySource("offload.bin", new Uint8Array(Buffer.concat(parts)));
      const run = async (options?: OffloadOptions) => {
        const offload = options && { file: { shape, counted: false, source }, options };
        using held = await loadModel(checkpoint, backend, { weights: "f32", structure: "dense", offload });
        using sequence = new Sequence(held, length);
        const rows: Float32Array[] = [];
        for (let at = 0; at < 10; at++) {
          const logits = await sequence.run(text.subarray(at, at + 1));
          rows.push(await backend.read(logits));
          backend.release(logits);
        }
        return { rows, bytesRead: held.offload?.takeCounters().bytesRead ?? 0 };
      };
      const { rows: wanted } = await run();
      const refused: string = await run({ residentBytes: 1 }).then(String, (error: Error) => error.message);
      const residentBytes = Number(/give at least (\d+)/.exec(refused)?.[1]);
      const [least, again, all] = [await run({ residentBytes }), await run({ residentBytes }), await run({})];
      for (const { rows } of [least, again, all]) expect(rows).toEqual(wanted);
      expect(again.bytesRead).toBe(least.bytesRead);
      expect(least.bytesRead).toBeGreaterThan(0);
      expect(all.bytesRead).toBeLessThanOrEqual(least.bytesRead);
    },
  );
});

test("every rule of routing routes nothing without a budget, everything with all of it, and no less with a larger one", () => {
  const rows = Array.from({ length: 20 }, (_, r) => normals(r, 12, 1 + r / 4));
  for (const name of Object.keys(routeRules)) {
    const routed = ["0", "0.2", "0.55", "1"].map((budget) => {
      const route = parseRoute(`${name}:budget=${budget}`);
      const certainties = rows.map((row) => route.certainty(row));
      const { least } = withBudget(route, certainties);
      return certainties.filter((certainty) => certainty < least!).length;
    });
    expect(routed, name).toEqual([0, 4, 11, 20]);
  }
});

test("with any draft, pattern and cache of every token, what is generated is what it is without a draft", async () => {
  const { ids } = architectureGolden("llama");
  const setups = [
    {},
    { kv: parseKv("int8") },
    { kv: parseKv("kivi:residual=16") },
    { attention: parseAttention("window:size=7,sinks=2") },
    { attention: parseAttention("strided:stride=5,split=heads"), kv: parseKv("int4") },
    { attention: parseAttention("quest:budget=12,page=4,dense=0") },
    { attention: parseAttention("quest:budget=12,page=4,dense=0,group=sum"), kv: parseKv("int8") },
  ];
  for (const setup of setups) {
    const options = { maxTokens: 16, stopIds: [], ...setup };
    const { tokenIds } = await collect(generate(model, ids, options));
    for (const draft of [lookupDraft(), layersDraft(1), modelDraft(model)]) {
      const speculated = await collect(generate(model, ids, { ...options, draft, draftTokens: 3 }));
      expect(speculated.tokenIds, `${draft.text} with ${JSON.stringify(setup)}`).toEqual(tokenIds);
    }
  }
});

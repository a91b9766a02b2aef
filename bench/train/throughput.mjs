// Where a training step goes, on the built package:
//   node bench/train/throughput.mjs [--model models/tiny-6m] [--device wasm|webgpu] [--threads N] [--engine | --compare] [--batch 4]
//     [--window 128] [--steps 5] [--methods dense,fixed-mask,sr-ste,cast] [--teacher MODEL] [--distil-loss kl]
//     [--skip matmul,step,methods,taught] [--json]
//
// matmul   rate of the device's own matrix product at the shapes that a step is made of (--engine: of the autograd engine's)
// step     loss alone, then loss and gradients, with everything that travels; the floating-point operations of the products
//          a step cannot do without, over its time, as a share of the rate above
// methods  a whole step of each method: masks and optimiser on the host, and on the device where it can hold them
// taught   a step beside the predictions of a teacher (the model itself, by default), the text alone, and the teacher's pass, each in
//          turn; and whole steps with the arrays on the device, where it can hold them
//
// The kernels of our own are measured; with --engine the traced step; with --compare the step of both, in turn. RAREFY_NATIVE=0 leaves
// native kernels out. Random tokens: nothing depends on them. On "wasm" also the processor's time is given: it is that of all threads, and
// says what a step costs on a machine that has other work.

import { openCheckpoint } from "../../dist/io/index.js";
import { directoryFiles } from "../../dist/io/index.node.js";
import { openCompute } from "../../dist/kernels/internal.js";
import { describeDecoder } from "../../dist/model/index.js";
import { Products } from "../../dist/train/engine/device/products.js";
import { startEngine } from "../../dist/train/engine/engine.js";
import { decoderObjective, modelParameters, readWeights, Training, trainMethods } from "../../dist/train/index.js";
import { canHoldRun } from "../../dist/train/resident.js";
import { readOptions } from "../../scripts/options.mjs";

const { values: options } = readOptions({
  options: {
    model: { type: "string", default: "models/tiny-6m" },
    device: { type: "string", default: "wasm" },
    engine: { type: "boolean", default: false },
    compare: { type: "boolean", default: false },
    threads: { type: "string" },
    batch: { type: "string", default: "4" },
    window: { type: "string", default: "128" },
    steps: { type: "string", default: "5" },
    methods: { type: "string", default: "dense,fixed-mask,sr-ste,cast" },
    teacher: { type: "string" },
    "distil-loss": { type: "string", default: "kl" },
    skip: { type: "string", default: "" },
    json: { type: "boolean", default: false },
  },
});
const [batch, window, steps] = ["batch", "window", "steps"].map((name) => Number(options[name]));
const { device } = options;
const traced = options.engine;
const threads = options.threads && Number(options.threads);
const skipped = options.skip.split(",");
const tokens = batch * window;
const results = { device, traced, batch, window };
const say = (text) => !options.json && console.log(text);

async function modelOf(directory) {
  const checkpoint = await openCheckpoint(directoryFiles(directory));
  const { config } = await describeDecoder(checkpoint);
  const parameters = modelParameters(config.spec, checkpoint.tensors);
  const weights = await readWeights(checkpoint, parameters);
  await checkpoint.close();
  return { config, parameters, weights };
}
const model = await modelOf(options.model);
const { config, parameters, weights } = model;

/** Multiply-adds of one token in the linear maps; a step makes three products of each. */
const matrices = parameters.filter(
  ({ shape, name }) => shape.length === 2 && (name !== "model.embed_tokens.weight" || config.tiedEmbeddings),
);
/** Share of the rows that a matrix sees: of an expert, those that are sent to it. */
const shareOf = new Map();
for (const { steps } of config.spec.blocks) {
  for (const { experts, router } of steps.filter((step) => step.do === "mixture")) {
    const maps = experts.flatMap(({ steps }) => steps.flatMap(({ maps = [] }) => maps));
    for (const { map } of maps) shareOf.set(map.weight.tensor, router.perToken / experts.length);
  }
}
const linear = matrices.reduce((sum, { shape, ref }) => sum + shape[0] * shape[1] * (shareOf.get(ref.tensor) ?? 1), 0);
/** And in attention: scores and mixing, of half the positions; backward makes twice as many, and the scores again. */
const attention = config.layers * config.queryHeads * config.headDim * window;
const flops = { forward: 2 * tokens * (linear + attention), step: 2 * tokens * (3 * linear + 3.5 * attention) };

const copyOf = (weights) => new Map(Array.from(weights, ([name, values]) => [name, values.slice()]));
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
/** Medians of works that take turns: milliseconds, and those of the processor in all threads. */
async function timedInTurn(works, repeats = steps) {
  for (const work of works) await work(); // compiles
  const times = works.map(() => ({ ms: [], cpuMs: [] }));
  for (let i = 0; i < repeats; i++) {
    for (const [w, work] of works.entries()) {
      const startMs = performance.now();
      const before = process.cpuUsage();
      await work();
      const { user, system } = process.cpuUsage(before);
      times[w].ms.push(performance.now() - startMs);
      times[w].cpuMs.push((user + system) / 1000);
    }
  }
  return times.map(({ ms, cpuMs }) => ({ ms: median(ms), cpuMs: median(cpuMs) }));
}
const timed = async (work, repeats) => (await timedInTurn([work], repeats))[0];
/** The time that a rate is of: on a CPU that of the processor, which others do not lengthen. */
const rated = ({ ms, cpuMs }) => (device === "wasm" ? cpuMs : ms);

const { hiddenSize, intermediateSize, vocabSize, headDim, queryHeads, kvHeads } = config;
const qkv = (queryHeads + 2 * kvHeads) * headDim;
/** [rows, depth] · [columns, depth]ᵀ. */
const shapes = [
  ["qkv", tokens, qkv, hiddenSize],
  ["gate and up", tokens, 2 * intermediateSize, hiddenSize],
  ["down", tokens, hiddenSize, intermediateSize],
  ["logits", tokens, vocabSize, hiddenSize],
];

/** Milliseconds of one product by the hand-written kernel. */
async function ownProducts() {
  const compute = await openCompute(device, { threads });
  say(compute.description);
  results.description = compute.description;
  const parts = compute.allocate(2 ** 23, "parts");
  const products = new Products(compute.recorder, parts, compute.enoughTiles);
  for (const [name, rows, columns, depth] of shapes) {
    const [a, b, c] = [rows * depth, columns * depth, rows * columns].map((n) => compute.allocate(n, "factor"));
    const kinds = {
      x·Wᵀ: () =>
        products.record({
          layout: "nt",
          rows,
          columns,
          depth,
          a: { memory: a, stride: depth },
          b: { memory: b, stride: depth },
          c: { memory: c, stride: columns },
        }),
      dY·W: () =>
        products.record({
          layout: "nn",
          rows,
          columns: depth,
          depth: columns,
          a: { memory: c, stride: columns },
          b: { memory: b, stride: depth },
          c: { memory: a, stride: depth },
        }),
      dYᵀ·X: () =>
        products.recordInParts(
          {
            layout: "tn",
            rows: columns,
            columns: depth,
            depth: rows,
            a: { memory: c, stride: columns },
            b: { memory: a, stride: depth },
          },
          b,
        ),
    };
    for (const [kind, record] of Object.entries(kinds)) {
      const repeats = 10;
      const time = await timed(async () => {
        for (let i = 0; i < repeats; i++) record();
        await compute.recorder.settle();
      });
      report(`${name} ${kind}`, rows, columns, depth, rated(time) / repeats);
    }
    for (const memory of [a, b, c]) compute.device.free(memory);
  }
  compute[Symbol.dispose]();
}

/** The same by the engine, each product on the result of the one before, so that none is left out. */
async function engineProducts() {
  await startEngine(device);
  const { jit, numpy: np } = await import("@jax-js/jax");
  for (const [name, rows, columns, depth] of shapes) {
    const a = np.ones([rows, depth]);
    const b = np.ones([columns, depth]);
    const product = jit((x, w) => np.matmul(x, np.transpose(w)));
    const time = await timed(async () => {
      const c = product(a.ref, b.ref);
      await c.ref.slice([0, 1], [0, 1]).data();
      c.dispose();
    });
    report(name, rows, columns, depth, rated(time));
  }
}

results.products = [];
function report(name, rows, columns, depth, ms) {
  const rate = (2 * rows * columns * depth) / ms / 1e6;
  results.products.push({ name, rows, columns, depth, ms, gflops: rate });
  say(
    `${name.padEnd(22)} ${`${rows} × ${columns} × ${depth}`.padEnd(22)} ${ms.toFixed(3).padStart(9)} ms ${rate.toFixed(1).padStart(9)} GFLOP/s`,
  );
}
if (!skipped.includes("matmul")) await (traced ? engineProducts() : ownProducts());

let state = 1;
const token = () => {
  state = (Math.imul(state, 1664525) + 1013904223) | 0;
  return (state >>> 0) % vocabSize;
};
const ids = () => ({ shape: [tokens], values: Int32Array.from({ length: tokens }, token) });
const data = { tokens: ids(), label: ids() };
async function openObjective({ config, parameters }, { teacher, ...options } = {}, byEngine = traced) {
  if (!byEngine) return decoderObjective(config.spec, parameters, window, device, { ...options, teacher, threads });
  await startEngine(device);
  const { tracedObjective } = await import("../../dist/train/engine/tracedObjective.js");
  const { traceModel } = await import("../../dist/train/trace/trace.js");
  return tracedObjective(traceModel(config.spec, parameters, window, options));
}
const objective = await openObjective(model);
const compared = options.compare ? await openObjective(model, {}, true) : undefined;
const best = Math.max(0, ...results.products.map(({ gflops }) => gflops));

if (!skipped.includes("step")) {
  const objectives = [[traced ? "traced" : "own", objective], ...(compared ? [["traced", compared]] : [])];
  for (const [part, name, work] of [
    ["forward", "loss", (one) => one.loss(weights, data)],
    ["step", "loss and gradients", (one) => one.lossAndGradients(weights, data)],
  ]) {
    const times = await timedInTurn(
      objectives.map(
        ([, one]) =>
          () =>
            work(one),
      ),
    );
    for (const [i, time] of times.entries()) {
      const [kind] = objectives[i];
      const rate = flops[part] / rated(time) / 1e6;
      results[kind] = { ...results[kind], [part]: { ...time, gflops: rate, share: rate / best } };
      say(
        `${name}, ${kind}`.padEnd(45) +
          ` ${time.ms.toFixed(1).padStart(9)} ms ${time.cpuMs.toFixed(1).padStart(9)} ms of processor ${rate.toFixed(1).padStart(9)} GFLOP/s` +
          (best > 0 && kind !== "traced" ? `, ${((100 * rate) / best).toFixed(0)} % of the best product` : ""),
      );
    }
  }
}

/** A run of a method, with the arrays on the host or on the device. */
async function trainingOf(id, objective, onDevice) {
  const { method } = await trainMethods[id]();
  return new Training({
    objective,
    weights: copyOf(weights),
    optimizer: { rate: () => 1e-6, beta2: 0.95, weightDecay: 0.1, clip: 1 },
    steps: 1000,
    seed: 0,
    method: (context) => method.start(context, method.options.parse({})),
    onDevice,
  });
}

async function timeMethod(id, onDevice) {
  const training = await trainingOf(id, objective, onDevice);
  const time = await timed(() => training.advance(data), onDevice && device === "webgpu" ? 4 * steps : steps);
  const rate = flops.step / rated(time) / 1e6;
  const tokensPerSecond = (1000 * tokens) / time.ms;
  results.methods.push({ id, onDevice, ...time, tokensPerSecond, gflops: rate, share: rate / best });
  const where = onDevice ? "on the device" : "on the host";
  say(
    `step of ${id}, arrays ${where}`.padEnd(45) +
      ` ${time.ms.toFixed(1).padStart(9)} ms ${time.cpuMs.toFixed(1).padStart(9)} ms of processor ${rate.toFixed(1).padStart(9)} GFLOP/s, ${tokensPerSecond.toFixed(0)} tokens/s`,
  );
}

results.methods = [];
if (!skipped.includes("methods")) {
  for (const id of options.methods.split(",")) {
    await timeMethod(id, false);
    if (canHoldRun(objective)) await timeMethod(id, true);
  }
}

/** What a teacher costs: in turn with the same without one. */
async function timeTaught() {
  const teacher =
    options.teacher === undefined ? { ...model, weights: copyOf(weights) } : await modelOf(options.teacher);
  const distillation = { share: 0.5, temperature: 1, loss: options["distil-loss"] };
  const beside = { spec: teacher.config.spec, parameters: teacher.parameters, weights: teacher.weights };
  const student = await openObjective(model, { distillation, teacher: beside });
  const judge = await openObjective(teacher);
  const shown = async () => {
    if (student.hasTeacher) return data;
    const values = await judge.predict(teacher.weights, data);
    return { ...data, teacher: { shape: [tokens, vocabSize], values } };
  };
  const works = {
    "the teacher alone": () => judge.loss(teacher.weights, data),
    "the text alone": () => objective.lossAndGradients(weights, data),
    "with a teacher": async () => student.lossAndGradients(weights, await shown()),
  };
  if (canHoldRun(objective) && canHoldRun(student)) {
    const [alone, taught] = await Promise.all([objective, student].map((one) => trainingOf("dense", one, true)));
    works["the text alone, arrays on the device"] = () => alone.advance(data);
    works["with a teacher, arrays on the device"] = async () => taught.advance(await shown());
  }
  const times = (await timedInTurn(Object.values(works))).map(rated);
  const ms = Object.fromEntries(Object.keys(works).map((name, w) => [name, times[w]]));
  results.taught = { onDevice: student.hasTeacher === true, loss: distillation.loss, ms };
  for (const [name, ms] of Object.entries(results.taught.ms)) {
    const [what, ...where] = name.split(", ");
    const than = results.taught.ms[["the text alone", ...where].join(", ")];
    const times = what === "with a teacher" ? `, ${(ms / than).toFixed(2)} times the text alone` : "";
    say(
      `step: ${name}`.padEnd(45) +
        ` ${ms.toFixed(1).padStart(9)} ms, ${((1000 * tokens) / ms).toFixed(0)} tokens/s${times}`,
    );
  }
  for (const one of [student, judge]) one[Symbol.dispose]();
}
if (!skipped.includes("taught")) await timeTaught();
objective[Symbol.dispose]();
compared?.[Symbol.dispose]();
if (options.json) console.log(JSON.stringify(results, null, 2));
process.exit(0);

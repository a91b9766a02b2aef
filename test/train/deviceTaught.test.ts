import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { type ModelSpec, readModelSpec } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import { type DecoderOptions, decoderSchedule, deviceDecoder } from "../../src/train/engine/device/deviceDecoder.js";
import { Layout } from "../../src/train/engine/device/layout.js";
import { Recording } from "../../src/train/engine/device/recording.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { tracedObjective } from "../../src/train/engine/tracedObjective.js";
import {
  type Batch,
  constant,
  initialProjections,
  initialWeights,
  type LossAndGradients,
  type MatchingOptions,
  matchingOf,
  matchingSchema,
  modelParameters,
  type Objective,
  shownFor,
  type TeacherModel,
  Training,
  teacherName,
  trainMethods,
} from "../../src/train/index.js";
import { randomFor } from "../../src/train/internal.js";
import type { Distillation } from "../../src/train/models/distillation.js";
import { featureKinds } from "../../src/train/models/matchingOptions.js";
import { traceModel } from "../../src/train/trace/trace.js";
import { cloneValues } from "../../src/train/values.js";
import { devices, distance } from "./deviceSupport.js";

vi.mock("../../src/kernels/internal.js", async (importOriginal) => {
  const { withSharedCompute } = await import("./sharedCompute.js");
  return withSharedCompute(await importOriginal<typeof import("../../src/kernels/internal.js")>());
});

type MatchingInput = Partial<MatchingOptions>;

/** No multiple of four, so that rows of logits are filled up. */
const vocabSize = 29;
const window = 8;
const rows = 3 * window;

const llama = (hidden: number, layers: number): ModelSpec =>
  readModelSpec(
    {
      ...{ model_type: "llama", vocab_size: vocabSize, hidden_size: hidden, intermediate_size: 2 * hidden },
      ...{ num_hidden_layers: layers, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 8 },
      ...{ max_position_embeddings: 32, rms_norm_eps: 1e-5, tie_word_embeddings: true },
    },
    "config.json",
  );

function modelOf(spec: ModelSpec, purpose: string): TeacherModel & { weights: ReturnType<typeof initialWeights> } {
  const parameters = modelParameters(spec);
  return { spec, parameters, weights: initialWeights(parameters, randomFor(1, purpose), 0.3) };
}

const student = modelOf(llama(16, 1), "student");
const teacher = modelOf(llama(24, 3), "teacher");

const random = new Random(7);
const ids = () => ({ shape: [rows], values: Int32Array.from({ length: rows }, () => random.integer(vocabSize)) });
const text: Batch = { tokens: ids(), label: ids() };
/** Of which some is given and not learnt. */
const record: Batch = {
  ...text,
  label: { shape: [rows], values: text.label.values.map((id, i) => (i % 3 ? id : -1)) },
};

const open: Objective[] = [];
const opened = <O extends Objective>(objective: O): O => {
  open.push(objective);
  return objective;
};
afterAll(() => {
  for (const objective of open) objective[Symbol.dispose]();
});

function expectEqual(found: LossAndGradients, expected: LossAndGradients) {
  expect(found.loss).toBeCloseTo(expected.loss, 5);
  expect([...found.measured.keys()]).toEqual([...expected.measured.keys()]);
  expect(found.measured.get("prediction")![0]).toBeCloseTo(expected.measured.get("prediction")![0], 5);
  expect([...found.gradients.keys()].sort()).toEqual([...expected.gradients.keys()].sort());
  for (const [name, gradient] of expected.gradients)
    expect([name, distance(found.gradients.get(name)!, gradient) < 1e-4]).toEqual([name, true]);
}

test("a teacher takes the room of one block", () => {
  const roomsOf = (layers: number) => {
    const { spec, parameters } = modelOf(llama(24, layers), "teacher");
    return decoderSchedule(spec, parameters, window, { forwardOnly: true })!.rooms.length;
  };
  expect(roomsOf(5)).toBe(roomsOf(2));
  const recording = new Recording(new Layout([]), window, { forwardOnly: true });
  const [stream, other] = [recording.keep("x", 8), recording.keep("other", 8)];
  recording.write("x", stream);
  recording.endBlock();
  expect(recording.keep("next", 8).room).toBe(other.room);
  expect([stream.room, other.room]).not.toContain(recording.keep("more", 8).room);
  // What it shows of its inside is kept.
  const { spec, parameters } = teacher;
  const shown = { logits: true, blocks: [0, 1], kinds: ["stream" as const] };
  const shows = decoderSchedule(spec, parameters, window, { shown, forwardOnly: true })!;
  const rooms = Array.from(shows.shown.values(), ({ room }) => room);
  expect(new Set(rooms).size).toBe(3);
});

test("what no kernel makes is left to the engine", () => {
  const { spec, parameters } = student;
  const has = (options: DecoderOptions) => decoderSchedule(spec, parameters, window, options) !== undefined;
  expect(has({ distillation: { share: 1, temperature: 1 } })).toBe(true);
  expect(has({ distillation: { share: 1, temperature: 1, loss: "minillm" } })).toBe(false);
  const matching = (input: MatchingInput) => matchingOf(matchingSchema.parse(input), spec, teacher.spec);
  expect(has({ matching: matching({}) })).toBe(true);
  expect(has({ matching: matching({ relations: 1 }) })).toBe(false);
});

describe.each(devices)("students by kernels of our own on %s", (_, device) => {
  let judged: Batch;
  beforeAll(async () => {
    await startEngine("wasm");
    const { spec, parameters, weights } = teacher;
    const oracle = opened(tracedObjective(traceModel(spec, parameters, window)));
    const values = await oracle.predict(weights, text);
    judged = { [teacherName]: { shape: [rows, vocabSize], values } };
  });

  const oracleOf = (options: Parameters<typeof traceModel>[3]) =>
    opened(tracedObjective(traceModel(student.spec, student.parameters, window, options)));

  const cases: [Required<Pick<Distillation, "share" | "temperature" | "loss">>, boolean][] = [
    [{ share: 0.6, temperature: 2, loss: "kl" }, false],
    [{ share: 1, temperature: 1, loss: "kl" }, true],
    [{ share: 0.7, temperature: 1.5, loss: "reverse-kl" }, true],
    [{ share: 0.3, temperature: 1, loss: "logits" }, true],
  ];
  test.each(cases)("%j, some of the text left out: %s", async (distillation, isMasked) => {
    const batch = isMasked ? record : text;
    const oracle = oracleOf({ distillation, ...(isMasked && { masked: true }) });
    const expected = await oracle.lossAndGradients(student.weights, { ...batch, ...judged });
    const objective = opened(
      (await deviceDecoder(student.spec, student.parameters, window, device, { distillation }))!,
    );
    expect(objective.hasTeacher).toBe(false);
    expectEqual(await objective.lossAndGradients(student.weights, { ...batch, ...judged }), expected);
    // Without a teacher in the batch the text is all there is.
    const alone = await objective.lossAndGradients(student.weights, batch);
    expectEqual(alone, await oracle.lossAndGradients(student.weights, batch));
    expect(await objective.loss(student.weights, { ...batch, ...judged })).toBeCloseTo(alone.loss, 5);
    // The teacher beside the student, whose logits stay where they are.
    const taught = opened(
      (await deviceDecoder(student.spec, student.parameters, window, device, { distillation, teacher }))!,
    );
    expect(taught.hasTeacher).toBe(true);
    expectEqual(await taught.lossAndGradients(student.weights, batch), expected);
  });

  const narrow = modelOf(llama(16, 2), "student");
  const wide = modelOf(llama(24, 2), "student");
  const matchings: [string, typeof student, MatchingInput, Distillation | undefined][] = [
    [
      "two blocks through a matrix each",
      narrow,
      {
        layers: [
          [0, 0],
          [1, 2],
        ],
      },
      { share: 0.4, temperature: 2 },
    ],
    [
      "one block with two, as they are",
      narrow,
      {
        relative: false,
        layers: [
          [0, 0],
          [0, 1],
        ],
      },
      undefined,
    ],
    [
      "blocks of one width",
      wide,
      {
        hidden: 0.7,
        layers: [
          [0, 1],
          [1, 2],
        ],
      },
      undefined,
    ],
  ];
  test.each(matchings)("states: %s", async (_, { spec, parameters, weights }, options, distillation) => {
    const matching = matchingOf(matchingSchema.parse(options), spec, teacher.spec);
    const shown = { logits: true, ...shownFor(matching) };
    using shows = tracedObjective(traceModel(teacher.spec, teacher.parameters, window, { shown }));
    const batch = { ...text, ...(await shows.show!(teacher.weights, text)) };
    const all = new Map([...weights, ...initialProjections(matching, 3)]);
    using oracle = tracedObjective(traceModel(spec, parameters, window, { matching, distillation }));
    const expected = await oracle.lossAndGradients(all, batch);
    const learnt = { matching, distillation };
    const objective = opened((await deviceDecoder(spec, parameters, window, device, { ...learnt, teacher }))!);
    expect(objective.parameters).toEqual(oracle.parameters);
    expectEqual(await objective.lossAndGradients(all, text), expected);
    expect(expected.loss).toBeGreaterThan(expected.measured.get("prediction")![0]);
    const brought = opened((await deviceDecoder(spec, parameters, window, device, learnt))!);
    expectEqual(await brought.lossAndGradients(all, batch), expected);
    expectEqual(await brought.lossAndGradients(all, text), await oracle.lossAndGradients(all, text));
  });

  test("a teacher that has no kernels leaves the student its own", async () => {
    const { head } = teacher.spec;
    const capped = { ...teacher, spec: { ...teacher.spec, head: { ...head, softcap: 30 } as typeof head } };
    const options = { distillation: { share: 1, temperature: 1 }, teacher: capped };
    expect(opened((await deviceDecoder(student.spec, student.parameters, window, device, options))!).hasTeacher).toBe(
      false,
    );
  });

  test("a model shows what of it is learnt from, and learns itself", async () => {
    const { spec, parameters, weights } = teacher;
    const shown = { logits: true, blocks: [0, 2], kinds: featureKinds };
    using oracle = tracedObjective(traceModel(spec, parameters, window, { shown }));
    const expected = await oracle.show!(weights, text);
    const objective = opened((await deviceDecoder(spec, parameters, window, device, { shown }))!);
    const expectShown = async () => {
      const found = await objective.show!(weights, text);
      expect(Object.keys(found).sort()).toEqual(Object.keys(expected).sort());
      for (const [name, { shape, values }] of Object.entries(expected)) {
        expect([name, found[name].shape]).toEqual([name, shape]);
        expect([name, distance(found[name].values, values) < 1e-5]).toEqual([name, true]);
      }
    };
    await expectShown();
    await expectShown();
    const others = new Map(Array.from(weights, ([name, values]) => [name, values.map((value) => 0.5 * value)]));
    expectEqual(await objective.lossAndGradients(others, text), await oracle.lossAndGradients(others, text));
    await expectShown();
    const plain = opened((await deviceDecoder(spec, parameters, window, device))!);
    expect(plain.show).toBeUndefined();
  });

  test("a batch of which nothing is learnt has loss 0 and no gradient", async () => {
    const distillation = { share: 0.5, temperature: 2 };
    const objective = opened(
      (await deviceDecoder(student.spec, student.parameters, window, device, { distillation, teacher }))!,
    );
    const none = { ...text, label: { shape: [rows], values: new Int32Array(rows).fill(-1) } };
    const { loss, gradients } = await objective.lossAndGradients(student.weights, none);
    expect(loss).toBe(0);
    for (const gradient of gradients.values()) expect(Math.max(...gradient.map(Math.abs))).toBe(0);
  });

  test("a run on the device beside its teacher takes the steps of one on the host", async () => {
    const distillation = { share: 0.5, temperature: 2 };
    const objective = opened(
      (await deviceDecoder(student.spec, student.parameters, window, device, { distillation, teacher }))!,
    );
    const { method } = await trainMethods["sr-ste"]();
    const runOf = (onDevice: boolean) =>
      new Training({
        ...{ objective, onDevice, steps: 4, seed: 1, weights: cloneValues(student.weights) },
        optimizer: { rate: constant(1e-2), clip: 1 },
        method: (context) => method.start(context, method.options.parse({ interval: 2 })),
      });
    const [host, resident] = [runOf(false), runOf(true)];
    const losses: number[] = [];
    for (let step = 0; step < 4; step++) {
      const { loss } = await host.advance(record);
      expect((await resident.advance(record)).loss).toBeCloseTo(loss, 4);
      losses.push(loss);
    }
    expect(losses[3]).toBeLessThan(losses[0]);
    await resident.synchronise();
    for (const [name, values] of host.weights)
      expect([name, distance(resident.weights.get(name)!, values) < 0.01]).toEqual([name, true]);
  });
});

import { jit, numpy as np, valueAndGrad } from "@jax-js/jax";
import { DeviceError } from "../../core/index.js";
import type { Batch, BatchArray, LossAndGradients, Objective } from "../objective.js";
import type { FloatArray, ParameterInfo, Values } from "../values.js";
import type { Traced } from "./ops.js";

/** Traced weights by parameter name, and the arrays of a batch by their names. */
export type TracedArrays = Readonly<Record<string, Traced>>;

/** A model as two functions that the engine traces: nothing in them may branch on values. */
export interface TracedModel {
  readonly parameters: readonly ParameterInfo[];
  predict(weights: TracedArrays, batch: TracedArrays): Traced;
  /**
   * A scalar, and arrays to be reported that no gradient flows through; `prediction` is the loss without what is only there
   * to steer training.
   */
  loss(weights: TracedArrays, batch: TracedArrays): { loss: Traced; measured?: TracedArrays };
  /** Arrays of the model's inside, by the names that they have in the batch of one that learns from it. */
  show?(weights: TracedArrays, batch: TracedArrays): TracedArrays;
}

/** Compiles a model for the engine's device. Call `startEngine` first. */
export function tracedObjective(model: TracedModel): Objective {
  const lossAndMeasured = (weights: TracedArrays, batch: TracedArrays): [Traced, Record<string, Traced>] => {
    const { loss, measured = {} } = model.loss(weights, batch);
    // What is returned is given up; the loss and a measured array may be one.
    return [loss.ref, Object.fromEntries(Object.entries(measured).map(([name, array]) => [name, array.ref]))];
  };
  const compiledLoss = jit(valueAndGrad(lossAndMeasured, { hasAux: true }));
  const compiledLossOnly = jit((weights: Record<string, Traced>, batch: Record<string, Traced>) => {
    const { loss, measured } = model.loss(weights, batch);
    return measured?.prediction ?? loss;
  });
  const compiledPredict = jit((weights: Record<string, Traced>, batch: Record<string, Traced>) =>
    model.predict(weights, batch),
  );
  const { show } = model;
  const compiledShow =
    show &&
    jit((weights: Record<string, Traced>, batch: Record<string, Traced>) =>
      Object.fromEntries(Object.entries(show(weights, batch)).map(([name, array]) => [name, array.ref])),
    );
  /** Weights of what is shown: they stay the same, and are uploaded once. */
  let held: { of: Values; arrays: Record<string, Traced> } | undefined;
  const release = () => {
    for (const array of Object.values(held?.arrays ?? {})) array.dispose();
    held = undefined;
  };
  const shapes = new Map(model.parameters.map(({ name, shape }) => [name, shape]));
  const upload = (weights: Values) =>
    Object.fromEntries(
      Array.from(shapes, ([name, shape]) => [
        name,
        np.array(weights.get(name)! as Float32Array<ArrayBuffer>, { shape: [...shape] }),
      ]),
    );
  const uploadBatch = (batch: Batch) =>
    Object.fromEntries(
      Object.entries(batch).map(([name, { shape, values }]) => [
        name,
        np.array(values as Float32Array<ArrayBuffer>, { shape: [...shape] }),
      ]),
    );

  return {
    parameters: model.parameters,
    lossAndGradients: withinMemory(async (weights, batch): Promise<LossAndGradients> => {
      const [[loss, measured], gradients] = compiledLoss(upload(weights), uploadBatch(batch));
      return {
        loss: (await loss.data())[0],
        gradients: await download(gradients as Record<string, Traced>),
        measured: await download(measured),
      };
    }),
    loss: withinMemory(
      async (weights, batch) => (await compiledLossOnly(upload(weights), uploadBatch(batch)).data())[0],
    ),
    predict: withinMemory(
      async (weights, batch) => (await compiledPredict(upload(weights), uploadBatch(batch)).data()) as FloatArray,
    ),
    ...(compiledShow && {
      show: withinMemory(async (weights, batch): Promise<Batch> => {
        if (held?.of !== weights) {
          release();
          held = { of: weights, arrays: upload(weights) };
        }
        const refs = Object.fromEntries(Object.entries(held.arrays).map(([name, array]) => [name, array.ref]));
        const arrays = compiledShow(refs, uploadBatch(batch)) as Record<string, Traced>;
        const found: [string, BatchArray][] = [];
        for (const [name, array] of Object.entries(arrays)) {
          const { shape } = array;
          found.push([name, { shape, values: (await array.data()) as FloatArray }]);
        }
        return Object.fromEntries(found);
      }),
    }),
    [Symbol.dispose]() {
      release();
      compiledShow?.dispose();
      compiledLoss.dispose();
      compiledLossOnly.dispose();
      compiledPredict.dispose();
    },
  };
}

/**
 * Says of what the engine has no memory for what can be done. It gives memory back by sizes and joins nothing, so that after a batch
 * that was too large others that would have fitted may not.
 */
const withinMemory =
  <T>(work: (weights: Values, batch: Batch) => Promise<T>) =>
  async (weights: Values, batch: Batch): Promise<T> => {
    try {
      return await work(weights, batch);
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      throw new DeviceError(
        "what this batch takes does not fit the 4 GiB of the training engine; take fewer or shorter texts in a batch, in a new process",
        { cause },
      );
    }
  };

async function download(arrays: Record<string, Traced>): Promise<Map<string, FloatArray>> {
  const values = new Map<string, FloatArray>();
  for (const [name, array] of Object.entries(arrays)) values.set(name, (await array.data()) as FloatArray);
  return values;
}

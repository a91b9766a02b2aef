import type { Random } from "../../core/index.js";
import { BatchNorm, Elementwise, FourierFeatures, type Layer, Linear, QuantumLayer } from "./layers.js";

/** A function of coordinates: f64 [inputs][samples] to [samples]. */
export class Network {
  constructor(readonly layers: readonly Layer[]) {}

  get parameterCount(): number {
    return this.layers.reduce((sum, { parameters }) => sum + parameters.length, 0);
  }

  forward(x: Float64Array, samples: number, training: boolean): Float64Array {
    return this.layers.reduce((now, layer) => layer.forward(now, samples, training), x);
  }

  /** Mean squared error; the layers hold its gradients. */
  lossAndGradients(x: Float64Array, target: Float64Array): number {
    const samples = target.length;
    const made = this.forward(x, samples, true);
    let loss = 0;
    let gradient: Float64Array = made.map((value, s) => {
      loss += (value - target[s]) ** 2 / samples;
      return (2 * (value - target[s])) / samples;
    });
    for (const layer of this.layers.toReversed()) gradient = layer.backward(gradient);
    return loss;
  }
}

/** Sizes of all models; those of the paper are the defaults. */
export interface ModelSizes {
  /** Hybrid layers: a linear map, a batch norm and a circuit. */
  hybridLayers: number;
  qubits: number;
  uploads: number;
  /** Of the networks it is compared with. */
  width: number;
  hiddenLayers: number;
  /** Factor inside SIREN's sines. */
  frequency: number;
}

export const paperSizes: ModelSizes = {
  hybridLayers: 3,
  qubits: 8,
  uploads: 2,
  width: 10,
  hiddenLayers: 6,
  frequency: 1,
};

const relu = () =>
  new Elementwise(
    (x) => Math.max(0, x),
    (x) => (x > 0 ? 1 : 0),
  );
const tanh = () => new Elementwise(Math.tanh, (x) => 1 - Math.tanh(x) ** 2);

function normedLayers(first: number, layers: number, width: number, random: Random, activation: () => Layer): Layer[] {
  return Array.from({ length: layers }, (_, l) => [
    new Linear(l === 0 ? first : width, width, random),
    new BatchNorm(width),
    activation(),
  ]).flat();
}

/** The models that are compared, each for coordinates of some dimension. */
export const models: Readonly<Record<string, (inputs: number, random: Random, sizes?: ModelSizes) => Network>> = {
  ReLU: (inputs, random, { width, hiddenLayers } = paperSizes) =>
    new Network([...normedLayers(inputs, hiddenLayers + 1, width, random, relu), new Linear(width, 1, random)]),
  Tanh: (inputs, random, { width, hiddenLayers } = paperSizes) =>
    new Network([...normedLayers(inputs, hiddenLayers + 1, width, random, tanh), new Linear(width, 1, random)]),
  "ReLU + RFF": (inputs, random, { width, hiddenLayers } = paperSizes) =>
    new Network([
      new FourierFeatures(inputs, width / 2, random),
      ...normedLayers(width, hiddenLayers, width, random, relu),
      new Linear(width, 1, random),
    ]),
  SIREN: (inputs, random, { width, hiddenLayers, frequency } = paperSizes) => {
    const sine = () =>
      new Elementwise(
        (x) => Math.sin(frequency * x),
        (x) => frequency * Math.cos(frequency * x),
      );
    const inner = Math.sqrt(6 / width) / frequency;
    const bounds = (l: number) => ({
      weight: l === 0 ? 1 / inputs : inner,
      bias: 1 / Math.sqrt(l === 0 ? inputs : width),
    });
    const layers = Array.from({ length: hiddenLayers + 1 }, (_, l) => [
      new Linear(l === 0 ? inputs : width, width, random, bounds(l)),
      sine(),
    ]);
    return new Network([...layers.flat(), new Linear(width, 1, random, bounds(1))]);
  },
  QIREN: (inputs, random, { hybridLayers, qubits, uploads } = paperSizes) => {
    const layers = Array.from({ length: hybridLayers }, (_, l) => [
      new Linear(l === 0 ? inputs : qubits, qubits, random),
      new BatchNorm(qubits),
      new QuantumLayer({ qubits, uploads }, random),
    ]);
    return new Network([...layers.flat(), new Linear(qubits, 1, random)]);
  },
};

/** Adam with a constant rate (Kingma, Ba 2015), over all parameters of a network. */
export class AdamFit {
  readonly #moments: { first: Float64Array; second: Float64Array }[];
  #step = 0;

  constructor(
    readonly network: Network,
    readonly rate: number,
  ) {
    this.#moments = network.layers.map(({ parameters }) => ({
      first: new Float64Array(parameters.length),
      second: new Float64Array(parameters.length),
    }));
  }

  /** @returns the loss before the step */
  step(x: Float64Array, target: Float64Array): number {
    const loss = this.network.lossAndGradients(x, target);
    this.#step++;
    const [correct1, correct2] = [1 - 0.9 ** this.#step, 1 - 0.999 ** this.#step];
    for (const [l, { parameters, gradient }] of this.network.layers.entries()) {
      const { first, second } = this.#moments[l];
      for (let i = 0; i < parameters.length; i++) {
        first[i] = 0.9 * first[i] + 0.1 * gradient[i];
        second[i] = 0.999 * second[i] + 0.001 * gradient[i] ** 2;
        parameters[i] -= (this.rate * (first[i] / correct1)) / (Math.sqrt(second[i] / correct2) + 1e-8);
      }
    }
    return loss;
  }
}

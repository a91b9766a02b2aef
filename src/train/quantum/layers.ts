import type { Random } from "../../core/index.js";
import { angleCount, Circuit, type CircuitShape } from "./circuit.js";

const nothing = new Float64Array(0);

/** A layer of a small network, on f64 [features][samples]. */
export interface Layer {
  /** All that is learnt, in one piece. */
  readonly parameters: Float64Array;
  /** As long; what `backward` leaves. */
  readonly gradient: Float64Array;
  /** @param training statistics of this batch; otherwise those of the last training batch */
  forward(x: Float64Array, samples: number, training: boolean): Float64Array;
  /** @param gradient with respect to what `forward` gave last @returns with respect to what it was given */
  backward(gradient: Float64Array): Float64Array;
}

/** W·x + b, parameters [outputs][inputs] and then [outputs], uniform in ±bound. */
export class Linear implements Layer {
  readonly parameters: Float64Array;
  readonly gradient: Float64Array;
  #x: Float64Array = nothing;
  #samples = 0;

  constructor(
    readonly inputs: number,
    readonly outputs: number,
    random: Random,
    bounds = { weight: 1 / Math.sqrt(inputs), bias: 1 / Math.sqrt(inputs) },
  ) {
    const weights = inputs * outputs;
    this.parameters = Float64Array.from(
      { length: weights + outputs },
      (_, i) => (2 * random.uniform() - 1) * (i < weights ? bounds.weight : bounds.bias),
    );
    this.gradient = new Float64Array(weights + outputs);
  }

  forward(x: Float64Array, samples: number): Float64Array {
    const { inputs, outputs, parameters } = this;
    [this.#x, this.#samples] = [x, samples];
    const y = new Float64Array(outputs * samples);
    for (let o = 0; o < outputs; o++) {
      y.fill(parameters[inputs * outputs + o], o * samples, (o + 1) * samples);
      for (let i = 0; i < inputs; i++) {
        const weight = parameters[o * inputs + i];
        for (let s = 0; s < samples; s++) y[o * samples + s] += weight * x[i * samples + s];
      }
    }
    return y;
  }

  backward(gradient: Float64Array): Float64Array {
    const { inputs, outputs, parameters } = this;
    const [x, samples] = [this.#x, this.#samples];
    const back = new Float64Array(inputs * samples);
    for (let o = 0; o < outputs; o++) {
      let bias = 0;
      for (let s = 0; s < samples; s++) bias += gradient[o * samples + s];
      this.gradient[inputs * outputs + o] = bias;
      for (let i = 0; i < inputs; i++) {
        const weight = parameters[o * inputs + i];
        let sum = 0;
        for (let s = 0; s < samples; s++) {
          const g = gradient[o * samples + s];
          sum += g * x[i * samples + s];
          back[i * samples + s] += weight * g;
        }
        this.gradient[o * inputs + i] = sum;
      }
    }
    return back;
  }
}

const epsilon = 1e-5;

/** Every feature to mean 0 and variance 1 over the batch, then scale and shift; parameters [features] scales, [features] shifts. */
export class BatchNorm implements Layer {
  readonly parameters: Float64Array;
  readonly gradient: Float64Array;
  /** Of the last training batch: mean and 1/deviation. */
  readonly #statistics: Float64Array;
  #normed = new Float64Array(0);

  constructor(readonly features: number) {
    this.parameters = new Float64Array(2 * features).fill(1, 0, features);
    this.gradient = new Float64Array(2 * features);
    this.#statistics = new Float64Array(2 * features).fill(1, features);
  }

  forward(x: Float64Array, samples: number, training: boolean): Float64Array {
    const { features, parameters } = this;
    const normed = new Float64Array(x.length);
    const y = new Float64Array(x.length);
    for (let f = 0; f < features; f++) {
      const values = x.subarray(f * samples, (f + 1) * samples);
      if (training) {
        const mean = values.reduce((sum, value) => sum + value, 0) / samples;
        const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / samples;
        this.#statistics[f] = mean;
        this.#statistics[features + f] = 1 / Math.sqrt(variance + epsilon);
      }
      for (let s = 0; s < samples; s++) {
        const at = f * samples + s;
        normed[at] = (values[s] - this.#statistics[f]) * this.#statistics[features + f];
        y[at] = parameters[f] * normed[at] + parameters[features + f];
      }
    }
    this.#normed = normed;
    return y;
  }

  backward(gradient: Float64Array): Float64Array {
    const { features, parameters } = this;
    const samples = gradient.length / features;
    const back = new Float64Array(gradient.length);
    for (let f = 0; f < features; f++) {
      let [sum, along] = [0, 0];
      for (let s = f * samples; s < (f + 1) * samples; s++) {
        sum += gradient[s];
        along += gradient[s] * this.#normed[s];
      }
      this.gradient[f] = along;
      this.gradient[features + f] = sum;
      const scale = parameters[f] * this.#statistics[features + f];
      for (let s = f * samples; s < (f + 1) * samples; s++) {
        back[s] = scale * (gradient[s] - sum / samples - (this.#normed[s] * along) / samples);
      }
    }
    return back;
  }
}

/** A function of every number. */
export class Elementwise implements Layer {
  readonly parameters = nothing;
  readonly gradient = nothing;
  #x: Float64Array = nothing;

  constructor(
    readonly f: (x: number) => number,
    readonly derivative: (x: number) => number,
  ) {}

  forward(x: Float64Array): Float64Array {
    this.#x = x;
    return x.map(this.f);
  }

  backward(gradient: Float64Array): Float64Array {
    return gradient.map((g, i) => g * this.derivative(this.#x[i]));
  }
}

/** Cosines and sines of 2π·B·x with a fixed B (Tancik et al. 2020, arXiv:2006.10739). */
export class FourierFeatures implements Layer {
  readonly parameters = nothing;
  readonly gradient = nothing;
  readonly frequencies: Float64Array;

  constructor(
    readonly inputs: number,
    readonly count: number,
    random: Random,
  ) {
    this.frequencies = Float64Array.from({ length: count * inputs }, () => random.normal());
  }

  forward(x: Float64Array, samples: number): Float64Array {
    const y = new Float64Array(2 * this.count * samples);
    for (let c = 0; c < this.count; c++) {
      for (let s = 0; s < samples; s++) {
        let phase = 0;
        for (let i = 0; i < this.inputs; i++) phase += this.frequencies[c * this.inputs + i] * x[i * samples + s];
        y[c * samples + s] = Math.cos(2 * Math.PI * phase);
        y[(this.count + c) * samples + s] = Math.sin(2 * Math.PI * phase);
      }
    }
    return y;
  }

  /** Nothing is learnt before it. */
  backward(): Float64Array {
    return nothing;
  }
}

/** A circuit with one feature for each qubit, angles uniform in [0, 2π). */
export class QuantumLayer implements Layer {
  readonly parameters: Float64Array;
  readonly gradient: Float64Array;
  readonly circuit: Circuit;

  constructor(shape: CircuitShape, random: Random) {
    const count = angleCount(shape);
    this.circuit = new Circuit(shape);
    this.parameters = Float64Array.from({ length: count }, () => 2 * Math.PI * random.uniform());
    this.gradient = new Float64Array(count);
  }

  forward(x: Float64Array): Float64Array {
    return this.circuit.forward(this.parameters, x);
  }

  backward(gradient: Float64Array): Float64Array {
    const { angles, x } = this.circuit.backward(gradient);
    this.gradient.set(angles);
    return x;
  }
}

import { describe, expect, it } from "vitest";
import { Random } from "../../core/index.js";
import { angleCount, Circuit } from "./circuit.js";
import { AdamFit, type ModelSizes, models } from "./network.js";
import { enlarged, signalNamed, signalNames } from "./signals.js";

const uniform = (random: Random, length: number, size = Math.PI) =>
  Float64Array.from({ length }, () => (2 * random.uniform() - 1) * size);
const expectClose = (actual: number, wanted: number, relative: number) =>
  expect(Math.abs(actual - wanted)).toBeLessThan(relative * (Math.abs(wanted) + 1e-3));

/** All of the circuit as matrices on states of all qubits, gate by gate, in complex numbers of its own. */
function byMatrices(qubits: number, uploads: number, angles: Float64Array, x: Float64Array): number[] {
  type C = [number, number];
  const size = 2 ** qubits;
  let psi: C[] = Array.from({ length: size }, (_, k) => [k === 0 ? 1 : 0, 0]);
  const times = ([a, b]: C, [c, d]: C): C => [a * c - b * d, a * d + b * c];
  const bit = (k: number, q: number) => (k >> (qubits - 1 - q)) & 1;
  const single = (q: number, u: C[][]) => {
    psi = psi.map((_, k): C => {
      const sum: C = [0, 0];
      for (let b = 0; b < 2; b++) {
        const from = (k & ~(1 << (qubits - 1 - q))) | (b << (qubits - 1 - q));
        const [re, im] = times(u[bit(k, q)][b], psi[from]);
        sum[0] += re;
        sum[1] += im;
      }
      return sum;
    });
  };
  const rz = (a: number): C[][] => [
    [
      [Math.cos(a / 2), -Math.sin(a / 2)],
      [0, 0],
    ],
    [
      [0, 0],
      [Math.cos(a / 2), Math.sin(a / 2)],
    ],
  ];
  const ry = (a: number): C[][] => [
    [
      [Math.cos(a / 2), 0],
      [-Math.sin(a / 2), 0],
    ],
    [
      [Math.sin(a / 2), 0],
      [Math.cos(a / 2), 0],
    ],
  ];
  for (let layer = 0; layer <= uploads; layer++) {
    if (layer > 0) for (let q = 0; q < qubits; q++) single(q, rz(x[q]));
    for (let sub = 0; sub < 2; sub++) {
      for (let q = 0; q < qubits; q++) {
        const at = ((2 * layer + sub) * qubits + q) * 3;
        single(q, rz(angles[at]));
        single(q, ry(angles[at + 1]));
        single(q, rz(angles[at + 2]));
      }
      for (let i = 0; i < qubits; i++) {
        const j = (i + sub + 1) % qubits;
        if (j !== i) psi = psi.map(([re, im], k): C => (bit(k, i) && bit(k, j) ? [-re, -im] : [re, im]));
      }
    }
  }
  return Array.from({ length: qubits }, (_, q) =>
    psi.reduce((sum, [re, im], k) => sum + (1 - 2 * bit(k, q)) * (re * re + im * im), 0),
  );
}

describe("the circuit", () => {
  const shape = { qubits: 3, uploads: 2 };
  const random = new Random(1);
  const angles = uniform(random, angleCount(shape));
  const samples = 5;
  const x = uniform(random, 3 * samples);

  it("is what its gates are as matrices, keeps the norm, and each sample is by itself", () => {
    const circuit = new Circuit(shape);
    const made = circuit.forward(angles, x);
    for (const norm of circuit.norms()) expect(Math.abs(norm - 1)).toBeLessThan(1e-14);
    for (let s = 0; s < samples; s++) {
      const wanted = byMatrices(
        3,
        2,
        angles,
        Float64Array.from({ length: 3 }, (_, q) => x[q * samples + s]),
      );
      for (let q = 0; q < 3; q++) expect(Math.abs(made[q * samples + s] - wanted[q])).toBeLessThan(1e-13);
    }
  });

  it("has the closed forms of one qubit, and without uploads does not see x", () => {
    const one = new Circuit({ qubits: 1, uploads: 0 });
    const of = (theta: number) => one.forward(Float64Array.of(0.3, theta, 0.7, 0, 0, 0), Float64Array.of(2))[0];
    for (const theta of [0, 0.4, 2, -1]) expect(of(theta)).toBeCloseTo(Math.cos(theta), 13);
    // RY(a), upload, RY(b): cos a · cos b − sin a · sin b · cos x.
    const [a, b] = [0.8, 1.3];
    const turns = new Float64Array(12);
    [turns[1], turns[7]] = [a, b];
    const uploaded = new Circuit({ qubits: 1, uploads: 1 }).forward(turns, Float64Array.of(0, 0.5, 2));
    for (const [s, at] of [0, 0.5, 2].entries()) {
      expect(uploaded[s]).toBeCloseTo(Math.cos(a) * Math.cos(b) - Math.sin(a) * Math.sin(b) * Math.cos(at), 13);
    }
  });

  it("its gradients are central differences and the parameter-shift rule; first φ and last ω of every qubit are dead", () => {
    const weights = uniform(random, 3 * samples);
    const circuit = new Circuit(shape);
    const loss = (a: Float64Array, at: Float64Array) =>
      circuit.forward(a, at).reduce((sum, value, i) => sum + value * weights[i], 0);
    loss(angles, x);
    const gradients = circuit.backward(weights);
    const nudged = (of: Float64Array, i: number, by: number) => of.map((value, k) => (k === i ? value + by : value));
    for (let i = 0; i < angles.length; i++) {
      const shifted = (loss(nudged(angles, i, Math.PI / 2), x) - loss(nudged(angles, i, -Math.PI / 2), x)) / 2;
      expect(Math.abs(gradients.angles[i] - shifted)).toBeLessThan(1e-12);
    }
    for (let i = 0; i < x.length; i++) {
      const difference = (loss(angles, nudged(x, i, 1e-5)) - loss(angles, nudged(x, i, -1e-5))) / 2e-5;
      expectClose(gradients.x[i], difference, 1e-7);
    }
    const dead = [0, 3, 6, angles.length - 7, angles.length - 4, angles.length - 1];
    for (const [i, gradient] of gradients.angles.entries()) {
      if (dead.includes(i)) expect(Math.abs(gradient)).toBeLessThan(1e-14);
      else expect(Math.abs(gradient)).toBeGreaterThan(1e-6);
    }
  });

  it.each([1, 2, 3])("%i uploads of an angle make harmonics up to that number and none above", (uploads) => {
    const points = 32;
    const circuit = new Circuit({ qubits: 3, uploads });
    const all = new Float64Array(3 * points).fill(0.4);
    for (let s = 0; s < points; s++) all[s] = (2 * Math.PI * s) / points;
    const made = circuit.forward(uniform(new Random(5), angleCount({ qubits: 3, uploads })), all);
    const size = (harmonic: number) => {
      let [re, im] = [0, 0];
      for (let s = 0; s < points; s++) {
        re += made[points + s] * Math.cos((2 * Math.PI * harmonic * s) / points);
        im += made[points + s] * Math.sin((2 * Math.PI * harmonic * s) / points);
      }
      return Math.hypot(re, im) / points;
    };
    for (let harmonic = uploads + 1; harmonic <= points / 2; harmonic++) expect(size(harmonic)).toBeLessThan(1e-14);
    expect(size(uploads)).toBeGreaterThan(1e-3);
  });
});

describe("the models", () => {
  it.each([
    ["QIREN", 649, 657],
    ["ReLU", 831, 841],
    ["Tanh", 831, 841],
    ["SIREN", 691, 701],
    ["ReLU + RFF", 791, 791],
  ])("%s has %i parameters for sound and %i for pictures", (name, sound, picture) => {
    expect(models[name](1, new Random(0)).parameterCount).toBe(sound);
    expect(models[name](2, new Random(0)).parameterCount).toBe(picture);
  });

  const small: ModelSizes = { hybridLayers: 2, qubits: 3, uploads: 2, width: 4, hiddenLayers: 2, frequency: 3 };
  it.each(Object.keys(models))(
    "%s: gradients against central differences, through norms and all; a fit goes down",
    (name) => {
      const network = models[name](2, new Random(3), small);
      const signal = signalNamed("cup", 5);
      // On a grid the middle of a normed feature would lie on the kink of a ReLU.
      const [x, { values }] = [uniform(new Random(8), 50, 1), signal];
      network.lossAndGradients(x, values);
      const gradients = network.layers.map(({ gradient }) => gradient.slice());
      for (const [l, { parameters }] of network.layers.entries()) {
        for (let i = 0; i < parameters.length; i += 3) {
          const kept = parameters[i];
          const at = (value: number) => {
            parameters[i] = value;
            return network.lossAndGradients(x, values);
          };
          const difference = (at(kept + 1e-5) - at(kept - 1e-5)) / 2e-5;
          at(kept);
          expectClose(gradients[l][i], difference, 1e-6);
        }
      }
      const fit = new AdamFit(network, 0.03);
      const losses = Array.from({ length: 40 }, () => fit.step(x, values));
      expect(losses.at(-1)!).toBeLessThan(0.7 * losses[0]);
      // What a norm has seen in training is what it uses on other points, one of them alone too.
      const whole = network.forward(x, 25, false);
      expect(network.forward(Float64Array.of(x[7], x[32]), 1, false)[0]).toBeCloseTo(whole[7], 12);
    },
  );
});

it("signals lie in −1 … 1 and reach an end of it; enlarging keeps the corners and, by lines, what is a plane", () => {
  for (const name of signalNames) {
    const { values } = signalNamed(name, name === "tone" ? 100 : 16);
    expect(values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)).toBe(1);
  }
  const plane = {
    dimensions: 2,
    size: 4,
    values: Float64Array.from({ length: 16 }, (_, i) => (i >> 2) + 0.1 * (i % 4)),
  } as const;
  const [lines, nearest] = [enlarged(plane, 7, "bilinear"), enlarged(plane, 7, "nearest")];
  for (let i = 0; i < 49; i++) expect(lines[i]).toBeCloseTo(Math.floor(i / 7) / 2 + (0.1 * (i % 7)) / 2, 12);
  expect([nearest[0], nearest[48]]).toEqual([0, plane.values[15]]);
});

/**
 * Exact simulation of a data re-uploading circuit with its gradient (QIREN: Zhao, Qiao, Zhang, Gao 2024). On n qubits, from |0…0>:
 * entangle(0), then for every upload l: RZ(x_j) on qubit j, entangle(l + 1). An entangler is two sub-layers, each a rotation
 * RZ(ω)·RY(θ)·RZ(φ) of every qubit and CZ between the qubits i and i + r around the ring, with r = 1, then 2. What comes out is
 * <Z_j> of every qubit. Qubit 0 is the most significant bit of a basis state.
 *
 * Arrays of states are [amplitude][sample], so that inner loops run over samples. The gradient un-applies gates one by one from
 * the last state (adjoint differentiation), so that memory does not grow with their number.
 */
export interface CircuitShape {
  qubits: number;
  /** How often x is uploaded. */
  uploads: number;
}

const subLayers = 2;

/** Angles of a circuit: φ, θ, ω of every qubit of every sub-layer. */
export const angleCount = ({ qubits, uploads }: CircuitShape): number => (uploads + 1) * subLayers * qubits * 3;

/** Amplitudes of a batch. */
interface State {
  re: Float64Array;
  im: Float64Array;
  samples: number;
}

/** u00, u01, u10, u11 as re, im pairs. */
type Gate = readonly [number, number, number, number, number, number, number, number];

/** RZ(ω)·RY(θ)·RZ(φ). */
function rotation(phi: number, theta: number, omega: number): Gate {
  const [c, s] = [Math.cos(theta / 2), Math.sin(theta / 2)];
  const [sum, difference] = [(phi + omega) / 2, (phi - omega) / 2];
  return [
    c * Math.cos(sum),
    -c * Math.sin(sum),
    -s * Math.cos(difference),
    -s * Math.sin(difference),
    s * Math.cos(difference),
    -s * Math.sin(difference),
    c * Math.cos(sum),
    c * Math.sin(sum),
  ];
}

const adjoint = ([a, ai, b, bi, c, ci, d, di]: Gate): Gate => [a, -ai, c, -ci, b, -bi, d, -di];

/** Pairs of amplitudes that differ in one bit. */
function* pairsOf(size: number, bit: number): Generator<readonly [number, number]> {
  for (let k = 0; k < size; k++) if ((k & bit) === 0) yield [k, k | bit];
}

function apply({ re, im, samples }: State, bit: number, [a, ai, b, bi, c, ci, d, di]: Gate): void {
  for (const [k0, k1] of pairsOf(re.length / samples, bit)) {
    const [p, q] = [k0 * samples, k1 * samples];
    for (let s = 0; s < samples; s++) {
      const x = re[p + s];
      const xi = im[p + s];
      const y = re[q + s];
      const yi = im[q + s];
      re[p + s] = a * x - ai * xi + b * y - bi * yi;
      im[p + s] = a * xi + ai * x + b * yi + bi * y;
      re[q + s] = c * x - ci * xi + d * y - di * yi;
      im[q + s] = c * xi + ci * x + d * yi + di * y;
    }
  }
}

/** Σ conj(λ_a)·ψ_b over pairs and samples, as re, im of (0,0), (0,1), (1,0), (1,1). */
function outer(lambda: State, psi: State, bit: number): Float64Array {
  const sums = new Float64Array(8);
  const { samples } = psi;
  for (const [k0, k1] of pairsOf(psi.re.length / samples, bit)) {
    const rows = [k0 * samples, k1 * samples];
    for (let entry = 0; entry < 4; entry++) {
      const from = rows[entry >> 1];
      const to = rows[entry & 1];
      let re = 0;
      let im = 0;
      for (let s = 0; s < samples; s++) {
        const l = lambda.re[from + s];
        const li = lambda.im[from + s];
        const x = psi.re[to + s];
        const xi = psi.im[to + s];
        re += l * x + li * xi;
        im += l * xi - li * x;
      }
      sums[2 * entry] += re;
      sums[2 * entry + 1] += im;
    }
  }
  return sums;
}

/** 2·Re Σ overlap·dU for the three angles. */
function angleGradients(overlap: Float64Array, phi: number, theta: number, omega: number): [number, number, number] {
  const along = (u: readonly number[]) => {
    let sum = 0;
    for (let i = 0; i < 8; i += 2) sum += overlap[i] * u[i] - overlap[i + 1] * u[i + 1];
    return 2 * sum;
  };
  const u = rotation(phi, theta, omega);
  // dU/dθ is half of U with θ + π.
  const turned = rotation(phi, theta + Math.PI, omega).map((value) => value / 2);
  // −i/2·Z from the right for φ, from the left for ω: each entry times ∓i/2.
  const times = (signs: readonly number[]) =>
    signs.flatMap((sign, i) => [(sign * u[2 * i + 1]) / 2, (-sign * u[2 * i]) / 2]);
  return [along(times([1, -1, 1, -1])), along(turned), along(times([1, 1, -1, -1]))];
}

export class Circuit {
  readonly #size: number;
  /** ±1 of every amplitude, for the ring of CZ of both sub-layers. */
  readonly #rings: Float64Array[];
  #last?: { state: State; angles: Float64Array; x: Float64Array };

  constructor(readonly shape: CircuitShape) {
    const { qubits } = shape;
    this.#size = 2 ** qubits;
    this.#rings = [1, 2].map((r) =>
      Float64Array.from({ length: this.#size }, (_, k) => {
        let sign = 1;
        for (let i = 0; i < qubits; i++) {
          const j = (i + r) % qubits;
          if (j !== i && (k & this.#bit(i)) !== 0 && (k & this.#bit(j)) !== 0) sign = -sign;
        }
        return sign;
      }),
    );
  }

  #bit(qubit: number): number {
    return 1 << (this.shape.qubits - 1 - qubit);
  }

  /** +1 where the qubit is 0 in basis state k, else −1. */
  #sign(k: number, qubit: number): number {
    return (k & this.#bit(qubit)) === 0 ? 1 : -1;
  }

  #cz({ re, im, samples }: State, subLayer: number): void {
    const ring = this.#rings[subLayer % subLayers];
    for (let k = 0; k < this.#size; k++) {
      if (ring[k] > 0) continue;
      for (let s = k * samples; s < (k + 1) * samples; s++) {
        re[s] = -re[s];
        im[s] = -im[s];
      }
    }
  }

  #angles(angles: Float64Array, subLayer: number, qubit: number): [number, number, number] {
    const at = (subLayer * this.shape.qubits + qubit) * 3;
    return [angles[at], angles[at + 1], angles[at + 2]];
  }

  #entangle(state: State, angles: Float64Array, layer: number): void {
    for (let sub = layer * subLayers; sub < (layer + 1) * subLayers; sub++) {
      for (let q = 0; q < this.shape.qubits; q++) apply(state, this.#bit(q), rotation(...this.#angles(angles, sub, q)));
      this.#cz(state, sub);
    }
  }

  /** Turns every amplitude by −direction · Σ ±x_j / 2. */
  #upload({ re, im, samples }: State, x: Float64Array, direction: number): void {
    const phases = new Float64Array(samples);
    for (let k = 0; k < this.#size; k++) {
      phases.fill(0);
      for (let q = 0; q < this.shape.qubits; q++) {
        const sign = this.#sign(k, q) / 2;
        for (let s = 0; s < samples; s++) phases[s] += sign * x[q * samples + s];
      }
      for (let s = 0; s < samples; s++) {
        const c = Math.cos(phases[s]);
        const d = -direction * Math.sin(phases[s]);
        const at = k * samples + s;
        const a = re[at];
        const b = im[at];
        re[at] = c * a - d * b;
        im[at] = c * b + d * a;
      }
    }
  }

  /**
   * @param angles f64 [angleCount], by sub-layer, qubit, (φ, θ, ω)
   * @param x f64 [qubits][samples]
   * @returns f64 [qubits][samples], <Z_j>
   */
  forward(angles: Float64Array, x: Float64Array): Float64Array {
    const { qubits, uploads } = this.shape;
    const samples = x.length / qubits;
    // Before the first upload all samples have one state.
    const common = this.#start(angles);
    const state: State = {
      re: new Float64Array(this.#size * samples),
      im: new Float64Array(this.#size * samples),
      samples,
    };
    for (let k = 0; k < this.#size; k++) {
      state.re.fill(common.re[k], k * samples, (k + 1) * samples);
      state.im.fill(common.im[k], k * samples, (k + 1) * samples);
    }
    for (let layer = 1; layer <= uploads; layer++) {
      this.#upload(state, x, 1);
      this.#entangle(state, angles, layer);
    }
    this.#last = { state, angles: angles.slice(), x };
    const out = new Float64Array(qubits * samples);
    for (let k = 0; k < this.#size; k++) {
      for (let q = 0; q < qubits; q++) {
        const sign = this.#sign(k, q);
        for (let s = 0; s < samples; s++) {
          const at = k * samples + s;
          out[q * samples + s] += sign * (state.re[at] * state.re[at] + state.im[at] * state.im[at]);
        }
      }
    }
    return out;
  }

  #start(angles: Float64Array): State {
    const state = { re: new Float64Array(this.#size), im: new Float64Array(this.#size), samples: 1 };
    state.re[0] = 1;
    this.#entangle(state, angles, 0);
    return state;
  }

  /** Norms of the last states, all 1 but for rounding. */
  norms(): Float64Array {
    const { re, im, samples } = this.#last!.state;
    const sums = new Float64Array(samples);
    for (let i = 0; i < re.length; i++) sums[i % samples] += re[i] ** 2 + im[i] ** 2;
    return sums.map(Math.sqrt);
  }

  /**
   * Of a loss, at what `forward` was last called with, which is used up.
   * @param gradient f64 [qubits][samples], with respect to its result
   */
  backward(gradient: Float64Array): { angles: Float64Array; x: Float64Array } {
    const { qubits, uploads } = this.shape;
    const { state: psi, angles, x } = this.#last!;
    const { samples } = psi;
    const lambda: State = { re: psi.re.slice(), im: psi.im.slice(), samples };
    for (let k = 0; k < this.#size; k++) {
      const factors = new Float64Array(samples);
      for (let q = 0; q < qubits; q++) {
        const sign = this.#sign(k, q);
        for (let s = 0; s < samples; s++) factors[s] += sign * gradient[q * samples + s];
      }
      for (let s = 0; s < samples; s++) {
        lambda.re[k * samples + s] *= factors[s];
        lambda.im[k * samples + s] *= factors[s];
      }
    }
    const ofAngles = new Float64Array(angles.length);
    const ofX = new Float64Array(x.length);
    for (let layer = uploads; layer >= 1; layer--) {
      this.#disentangle(psi, lambda, angles, layer, ofAngles);
      for (let k = 0; k < this.#size; k++) {
        for (let q = 0; q < qubits; q++) {
          const sign = this.#sign(k, q);
          for (let s = 0; s < samples; s++) {
            const at = k * samples + s;
            ofX[q * samples + s] += sign * (lambda.re[at] * psi.im[at] - lambda.im[at] * psi.re[at]);
          }
        }
      }
      this.#upload(psi, x, -1);
      this.#upload(lambda, x, -1);
    }
    const one: State = { re: new Float64Array(this.#size), im: new Float64Array(this.#size), samples: 1 };
    for (let i = 0; i < lambda.re.length; i++) {
      one.re[Math.floor(i / samples)] += lambda.re[i];
      one.im[Math.floor(i / samples)] += lambda.im[i];
    }
    this.#disentangle(this.#start(angles), one, angles, 0, ofAngles);
    this.#last = undefined;
    return { angles: ofAngles, x: ofX };
  }

  /** Un-applies an entangler to both states, adding up the gradients of its angles on the way. */
  #disentangle(psi: State, lambda: State, angles: Float64Array, layer: number, gradients: Float64Array): void {
    const { qubits } = this.shape;
    for (let sub = (layer + 1) * subLayers - 1; sub >= layer * subLayers; sub--) {
      for (const state of [psi, lambda]) this.#cz(state, sub);
      for (let q = qubits - 1; q >= 0; q--) {
        const own = this.#angles(angles, sub, q);
        const undo = adjoint(rotation(...own));
        apply(psi, this.#bit(q), undo);
        gradients.set(angleGradients(outer(lambda, psi, this.#bit(q)), ...own), (sub * qubits + q) * 3);
        apply(lambda, this.#bit(q), undo);
      }
    }
  }
}

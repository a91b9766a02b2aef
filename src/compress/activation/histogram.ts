import { UsageError } from "../../core/index.js";

/** Magnitude bits of a bin: 8 of the exponent and the upper 9 of the fraction, so a bin spans at most 1/512 of its value. */
const magnitudeBins = 2 ** 17;
const droppedBits = 14;
const infinityBin = 0xff << 9;

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/** Smallest magnitude that falls into a bin; of the bins beyond the last finite one, the largest f32. */
function lowerEdge(bin: number): number {
  scratchBits[0] = bin >= infinityBin ? 0x7f7fffff : bin << droppedBits;
  return scratch[0];
}

function binOfMagnitude(magnitude: number): number {
  scratch[0] = magnitude;
  return scratchBits[0] >>> droppedBits;
}

/**
 * One-pass histogram of f32 activations. A bin is the sign and the upper 17 bits of the magnitude of a float, so no pass
 * for the range is needed, memory is fixed (2 MiB), counts are exact and a quantile is right to 0.2 % of its value
 * before the linear interpolation inside the bin. Magnitudes below 2⁻¹³⁵ count as zeros, apart from all others.
 */
export class ActivationHistogram {
  /** Positive bins by magnitude, then negative ones: the order of the bit patterns. f64 counts cannot overflow. */
  readonly #counts = new Float64Array(2 * magnitudeBins);
  #count = 0;
  #cumulative: { magnitude: Float64Array; positive: Float64Array } | undefined;

  /** @param name for messages: which activations these are */
  constructor(readonly name = "activations") {}

  /** Values seen. */
  get count(): number {
    return this.#count;
  }

  /**
   * Counts every value.
   * @throws UsageError naming the first NaN or infinity; then nothing of `values` is counted.
   */
  add(values: Float32Array): void {
    const counts = this.#counts;
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    for (let i = 0; i < bits.length; i++) counts[bits[i] >>> droppedBits]++;
    if (this.#holdsNonFinite()) {
      for (let i = 0; i < bits.length; i++) counts[bits[i] >>> droppedBits]--;
      const index = values.findIndex((value) => !Number.isFinite(value));
      throw new UsageError(
        `${this.name}: value ${index} of ${values.length} is ${values[index]}; thresholds need finite activations. Check the weights, or use a wider number format.`,
      );
    }
    this.#count += values.length;
    this.#cumulative = undefined;
  }

  /** Adds the counts of another histogram. */
  merge(other: ActivationHistogram): void {
    for (let bin = 0; bin < this.#counts.length; bin++) this.#counts[bin] += other.#counts[bin];
    this.#count += other.#count;
    this.#cumulative = undefined;
  }

  /**
   * The t ≥ 0 with P(|x| ≤ t) = p, the p-quantile of |x|; 0 for p = 0, and wherever the zeros alone are a share of p.
   * @param p in [0, 1]
   * @returns an f32 number
   * @throws UsageError for p outside [0, 1] or an empty histogram
   */
  absQuantile(p: number): number {
    this.#checkShare(p);
    return p === 0 ? 0 : quantile(this.#cumulated().magnitude, p * this.#count);
  }

  /**
   * t = F⁻¹(0.5 + p/2) of the signed values, at least 0: equal to `absQuantile` under a density symmetric about 0. The
   * estimator of the published TEAL code; 0 for p = 0.
   * @param p in [0, 1]
   * @returns an f32 number
   * @throws UsageError for p outside [0, 1] or an empty histogram
   */
  symmetricQuantile(p: number): number {
    this.#checkShare(p);
    if (p === 0) return 0;
    const { magnitude, positive } = this.#cumulated();
    const negatives = this.#count - magnitude[1] - (positive[magnitudeBins] - positive[1]);
    // The zeros lie between the negatives and the positives, whichever sign bit they carry.
    const below = negatives + magnitude[1] - positive[1];
    return quantile(positive, (0.5 + p / 2) * this.#count - below);
  }

  /** Share of values with |x| ≤ threshold: the sparsity that the threshold realises on what was counted. */
  sparsityAt(threshold: number): number {
    const cumulative = this.#cumulated().magnitude;
    const bin = binOfMagnitude(threshold);
    if (bin >= infinityBin) return 1;
    if (bin === 0) return cumulative[1] / this.#count;
    const lower = lowerEdge(bin);
    const part = (Math.fround(threshold) - lower) / (lowerEdge(bin + 1) - lower);
    return (cumulative[bin] + part * (cumulative[bin + 1] - cumulative[bin])) / this.#count;
  }

  #checkShare(p: number): void {
    if (!(p >= 0 && p <= 1)) throw new UsageError(`a share of zeros lies in [0, 1], not ${p}`);
    if (this.#count === 0) throw new UsageError(`${this.name}: nothing was counted, so there is no threshold`);
  }

  #holdsNonFinite(): boolean {
    const counts = this.#counts;
    for (let bin = infinityBin; bin < magnitudeBins; bin++) {
      if (counts[bin] + counts[bin + magnitudeBins] > 0) return true;
    }
    return false;
  }

  /** Entry b of each: how many values have a magnitude below the lower edge of bin b; one entry more than bins. */
  #cumulated() {
    if (this.#cumulative !== undefined) return this.#cumulative;
    const magnitude = new Float64Array(magnitudeBins + 1);
    const positive = new Float64Array(magnitudeBins + 1);
    for (let bin = 0; bin < magnitudeBins; bin++) {
      const positives = this.#counts[bin];
      positive[bin + 1] = positive[bin] + positives;
      magnitude[bin + 1] = magnitude[bin] + positives + this.#counts[bin + magnitudeBins];
    }
    this.#cumulative = { magnitude, positive };
    return this.#cumulative;
  }
}

/** The magnitude below which `target` values lie, by linear interpolation inside its bin; 0 while zeros are enough. */
function quantile(cumulative: Float64Array, target: number): number {
  if (cumulative[1] >= target) return 0;
  // The first bin whose end reaches the target; p · count may lie a rounding error above the last count.
  const goal = Math.min(target, cumulative[magnitudeBins]);
  let low = 1;
  let high = magnitudeBins - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (cumulative[middle + 1] >= goal) high = middle;
    else low = middle + 1;
  }
  const lower = lowerEdge(low);
  const part = (goal - cumulative[low]) / (cumulative[low + 1] - cumulative[low]);
  return Math.fround(lower + part * (lowerEdge(low + 1) - lower));
}

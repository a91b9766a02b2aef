/**
 * The generator of Python's `random.Random`, so that examples and resamples drawn by a seed are those that
 * lm-evaluation-harness draws: MT19937 (Matsumoto and Nishimura, 1998) seeded by a whole number.
 */
export class PythonRandom {
  readonly #state = new Uint32Array(624);
  #at = 624;

  /** @param seed a safe whole number; its sign does not count, as in Python */
  constructor(seed: number) {
    const size = Math.abs(seed);
    const key = size < 2 ** 32 ? [size] : [size % 2 ** 32, Math.floor(size / 2 ** 32)];
    this.#seed(key);
  }

  #seed(key: readonly number[]): void {
    const state = this.#state;
    state[0] = 19650218;
    for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
    let [i, j] = [1, 0];
    const next = () => {
      if (++i >= 624) {
        state[0] = state[623];
        i = 1;
      }
    };
    const mixed = (factor: number) => state[i] ^ Math.imul(state[i - 1] ^ (state[i - 1] >>> 30), factor);
    for (let k = Math.max(624, key.length); k > 0; k--) {
      state[i] = mixed(1664525) + key[j] + j;
      next();
      if (++j >= key.length) j = 0;
    }
    for (let k = 623; k > 0; k--) {
      state[i] = mixed(1566083941) - i;
      next();
    }
    state[0] = 0x80000000;
  }

  /** Uniform over 0 … 2³²−1. */
  uint32(): number {
    if (this.#at === 624) this.#turn();
    let y = this.#state[this.#at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  #turn(): void {
    const state = this.#state;
    for (let k = 0; k < 624; k++) {
      const y = (state[k] & 0x80000000) | (state[(k + 1) % 624] & 0x7fffffff);
      state[k] = state[(k + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#at = 0;
  }

  /** Python's `random()`: uniform in [0, 1), 53 bits. */
  uniform(): number {
    const [a, b] = [this.uint32() >>> 5, this.uint32() >>> 6];
    return (a * 67108864 + b) / 2 ** 53;
  }

  /** Python's `randrange(below)`. */
  integer(below: number): number {
    const bits = 32 - Math.clz32(below);
    for (;;) {
      const drawn = this.uint32() >>> (32 - bits);
      if (drawn < below) return drawn;
    }
  }

  /** Python's `sample`: `count` of the items, none twice. `count` is at most their number. */
  sample<T>(items: readonly T[], count: number): T[] {
    const n = items.length;
    const poolFrom = 21 + (count > 5 ? 4 ** Math.ceil(Math.log(count * 3) / Math.log(4)) : 0);
    if (n <= poolFrom) {
      const pool = [...items];
      return Array.from({ length: count }, (_, i) => {
        const at = this.integer(n - i);
        const drawn = pool[at];
        pool[at] = pool[n - i - 1];
        return drawn;
      });
    }
    const taken = new Set<number>();
    return Array.from({ length: count }, () => {
      let at = this.integer(n);
      while (taken.has(at)) at = this.integer(n);
      taken.add(at);
      return items[at];
    });
  }
}

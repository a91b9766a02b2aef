import { rowsAtOnce, Step, takeSome } from "./step";

// @ts-ignore: decorator
@unmanaged
export class LookUp extends Step {
  count: u32;
  width: u32;
  table: u32;
  scale: f32;
  x: usize;
  weights: usize;
  tokens: usize;
}

export function lookUp(p: LookUp): void {
  const rowBytes = <usize>p.width << 4;
  const rows = p.count / p.width;
  const each = rowsAtOnce(p.width << 2);
  const scale = f32x4.splat(p.scale);
  for (let first = takeSome(each, rows); first < rows; first = takeSome(each, rows)) {
    const end = min<u32>(first + each, rows);
    for (let row = first; row < end; row++) {
      const from = p.weights + (<usize>(p.table + load<u32>(p.tokens + ((<usize>row) << 2)) * p.width) << 4);
      const to = p.x + <usize>row * rowBytes;
      for (let i: usize = 0; i < rowBytes; i += 16) v128.store(to + i, f32x4.mul(scale, v128.load(from + i)));
    }
  }
}

// @ts-ignore: decorator
@unmanaged
export class AddRows extends Step {
  count: u32;
  width: u32;
  result: u32;
  first: u32;
  accumulate: u32;
  scale: f32;
  sums: usize;
  x: usize;
  order: usize;
  starts: usize;
}

export function addRows(p: AddRows): void {
  const rowBytes = <usize>p.width << 4;
  const pairs = p.count / p.width;
  const scale = f32x4.splat(p.scale);
  const each = rowsAtOnce(p.width << 2);
  for (let pair = takeSome(each, pairs); pair < pairs; pair = takeSome(each, pairs)) {
    const lastPair = min<u32>(pair + each, pairs);
    for (let n = pair; n < lastPair; n++) {
      const at = p.starts + (<usize>(p.first + n) << 3);
      const begin = load<u32>(at);
      const end = load<u32>(at, 8);
      const to = p.sums + (<usize>(p.result + load<u32>(at, 4) * p.width) << 4);
      for (let column: usize = 0; column < rowBytes; column += 16) {
        let sum = f32x4.splat(0);
        for (let i = begin; i < end; i++) {
          const row = load<u32>(p.order + ((<usize>i) << 2));
          sum = f32x4.add(sum, v128.load(p.x + <usize>row * rowBytes + column));
        }
        sum = f32x4.mul(sum, scale);
        if (p.accumulate != 0) sum = f32x4.add(sum, v128.load(to + column));
        v128.store(to + column, sum);
      }
    }
  }
}

// @ts-ignore: decorator
@unmanaged
export class Rotate extends Step {
  count: u32;
  pairs: u32;
  heads: u32;
  every: u32;
  stride: u32;
  first: u32;
  next: u32;
  partner: u32;
  positions: u32;
  direction: f32;
  x: usize;
  turns: usize;
}

export function rotate(p: Rotate): void {
  const pairs = p.pairs;
  const rows = p.count / (pairs * p.heads);
  const each = rowsAtOnce(2 * pairs * p.heads);
  const direction = f32x4.splat(p.direction);
  const partner = <usize>p.partner << 2;
  const next = <usize>p.next << 2;
  for (let begin = takeSome(each, rows); begin < rows; begin = takeSome(each, rows)) {
    const end = min<u32>(begin + each, rows);
    for (let row = begin; row < end; row++) {
      const turns = p.turns + (<usize>((row % p.positions) * pairs) << 3);
      for (let head: u32 = 0; head < p.heads; head++) {
        const x = p.x + (<usize>(row * p.stride + p.first + head * p.every) << 2);
        let pair: u32 = 0;
        if (p.next == 1) {
          for (; pair + 4 <= pairs; pair += 4) {
            const low = v128.load(turns + (<usize>pair << 3));
            const high = v128.load(turns + (<usize>pair << 3), 16);
            const cosine = v128.shuffle<i32>(low, high, 0, 2, 4, 6);
            const sine = f32x4.mul(v128.shuffle<i32>(low, high, 1, 3, 5, 7), direction);
            const at = x + (<usize>pair << 2);
            const a = v128.load(at);
            const b = v128.load(at + partner);
            v128.store(at, f32x4.sub(f32x4.mul(a, cosine), f32x4.mul(b, sine)));
            v128.store(at + partner, f32x4.add(f32x4.mul(b, cosine), f32x4.mul(a, sine)));
          }
        }
        for (; pair < pairs; pair++) {
          const cosine = load<f32>(turns + (<usize>pair << 3));
          const sine = load<f32>(turns + (<usize>pair << 3), 4) * p.direction;
          const at = x + <usize>pair * next;
          const a = load<f32>(at);
          const b = load<f32>(at + partner);
          store<f32>(at, a * cosine - b * sine);
          store<f32>(at + partner, b * cosine + a * sine);
        }
      }
    }
  }
}

// @ts-ignore: decorator
@unmanaged
export class SumOf extends Step {
  count: u32;
  sum: usize;
  a: usize;
  b: usize;
}

/** Counts of these are rows of whole vectors. */
export function sumOf(p: SumOf): void {
  const each = rowsAtOnce(4);
  const vectors = p.count >> 2;
  for (let first = takeSome(each, vectors); first < vectors; first = takeSome(each, vectors)) {
    const end = <usize>min<u32>(first + each, vectors) << 4;
    for (let at = <usize>first << 4; at < end; at += 16) {
      v128.store(p.sum + at, f32x4.add(v128.load(p.a + at), v128.load(p.b + at)));
    }
  }
}

// @ts-ignore: decorator
@unmanaged
export class AddTo extends Step {
  count: u32;
  accumulate: u32;
  sum: usize;
  x: usize;
}

export function addTo(p: AddTo): void {
  const each = rowsAtOnce(4);
  const vectors = p.count >> 2;
  for (let first = takeSome(each, vectors); first < vectors; first = takeSome(each, vectors)) {
    const end = <usize>min<u32>(first + each, vectors) << 4;
    for (let at = <usize>first << 4; at < end; at += 16) {
      let value = v128.load(p.x + at);
      if (p.accumulate != 0) value = f32x4.add(value, v128.load(p.sum + at));
      v128.store(p.sum + at, value);
    }
  }
}

// @ts-ignore: decorator
@unmanaged
export class AddRepeated extends Step {
  count: u32;
  offset: u32;
  period: u32;
  x: usize;
  table: usize;
}

export function addRepeated(p: AddRepeated): void {
  const rows = p.count / p.period;
  const rowBytes = <usize>p.period << 4;
  const each = rowsAtOnce(p.period << 2);
  const table = p.table + (<usize>p.offset << 4);
  for (let first = takeSome(each, rows); first < rows; first = takeSome(each, rows)) {
    const end = min<u32>(first + each, rows);
    for (let row = first; row < end; row++) {
      const x = p.x + <usize>row * rowBytes;
      for (let i: usize = 0; i < rowBytes; i += 16) v128.store(x + i, f32x4.add(v128.load(x + i), v128.load(table + i)));
    }
  }
}

// @ts-ignore: decorator
@unmanaged
export class Relu extends Step {
  count: u32;
  x: usize;
}

export function relu(p: Relu): void {
  const each = rowsAtOnce(4);
  const vectors = p.count >> 2;
  const zero = f32x4.splat(0);
  for (let first = takeSome(each, vectors); first < vectors; first = takeSome(each, vectors)) {
    const end = <usize>min<u32>(first + each, vectors) << 4;
    for (let at = <usize>first << 4; at < end; at += 16) v128.store(p.x + at, f32x4.max(v128.load(p.x + at), zero));
  }
}

// @ts-ignore: decorator
@unmanaged
export class ReluBackward extends Step {
  count: u32;
  gradient: usize;
  result: usize;
}

export function reluBackward(p: ReluBackward): void {
  const each = rowsAtOnce(4);
  const vectors = p.count >> 2;
  const zero = f32x4.splat(0);
  for (let first = takeSome(each, vectors); first < vectors; first = takeSome(each, vectors)) {
    const end = <usize>min<u32>(first + each, vectors) << 4;
    for (let at = <usize>first << 4; at < end; at += 16) {
      const isPassed = f32x4.gt(v128.load(p.result + at), zero);
      v128.store(p.gradient + at, v128.and(v128.load(p.gradient + at), isPassed));
    }
  }
}

// @ts-ignore: decorator
@unmanaged
export class SumParts extends Step {
  count: u32;
  parts: u32;
  offset: u32;
  sums: usize;
  // In the order of the kernel's buffers; `parts` is the parameter's name.
  partsBuffer: usize;
}

export function sumParts(p: SumParts): void {
  const count = p.count;
  const each = max<u32>(64, rowsAtOnce(max<u32>(1, p.parts)) & ~3);
  const rowBytes = <usize>count << 2;
  const sums = p.sums + (<usize>p.offset << 2);
  for (let first = takeSome(each, count); first < count; first = takeSome(each, count)) {
    const end = min<u32>(first + each, count);
    let i = first;
    for (; i + 4 <= end; i += 4) {
      let sum = f32x4.splat(0);
      let from = p.partsBuffer + (<usize>i << 2);
      for (let part: u32 = 0; part < p.parts; part++) {
        sum = f32x4.add(sum, v128.load(from));
        from += rowBytes;
      }
      v128.store(sums + (<usize>i << 2), sum);
    }
    for (; i < end; i++) {
      let sum: f32 = 0;
      let from = p.partsBuffer + (<usize>i << 2);
      for (let part: u32 = 0; part < p.parts; part++) {
        sum += load<f32>(from);
        from += rowBytes;
      }
      store<f32>(sums + (<usize>i << 2), sum);
    }
  }
}

import { Step, takeOne } from "./step";

/** As `bins`, `stretchWords` and `searchWords` of the kernels for a GPU. */
const bins: u32 = 2048;
const stretchBytes: usize = 16;
const searchBytes: usize = 16;

// @ts-ignore: decorator
@unmanaged
export class CountDigits extends Step {
  word: u32;
  shift: u32;
  bits: u32;
  counts: usize;
  values: usize;
  stretches: usize;
  searches: usize;
}

/** The histogram of a share is made in the thread's scratch. */
export function countDigits(p: CountDigits, thread: i32): void {
  const items = p.gridX * p.gridY;
  const own = p.scratch + <usize>thread * <usize>(bins << 2);
  const digits: u32 = (1 << p.bits) - 1;
  for (let item = takeOne(items); item < items; item = takeOne(items)) {
    const stretch = p.stretches + <usize>(item / p.gridX) * stretchBytes;
    const offset = load<u32>(stretch);
    const length = load<u32>(stretch, 4);
    const budget = load<u32>(stretch, 8);
    const first = load<u32>(stretch, 12);
    const search = p.searches + <usize>budget * searchBytes;
    const magnitude = load<u32>(search);
    // What comes before the digit; a shift by all 32 bits would shift by none.
    const above = (load<u32>(search + (<usize>p.word << 2)) >> p.shift) >> p.bits;
    memory.fill(own, 0, <usize>bins << 2);
    const share = item % p.gridX;
    const end = <u32>((<u64>length * (share + 1)) / p.gridX);
    for (let i = <u32>((<u64>length * share) / p.gridX); i < end; i++) {
      const size = load<u32>(p.values + (<usize>(offset + i) << 2)) & 0x7fffffff;
      const key = p.word == 0 ? size : ~(first + i);
      if (p.word != 0 && size != magnitude) continue;
      if (((key >> p.shift) >> p.bits) != above) continue;
      const bin = own + (<usize>((key >> p.shift) & digits) << 2);
      store<u32>(bin, load<u32>(bin) + 1);
    }
    const counts = p.counts + ((<usize>budget * bins) << 2);
    for (let at: usize = 0; at < <usize>(bins << 2); at += 4) {
      const count = load<u32>(own + at);
      if (count != 0) atomic.add<u32>(counts + at, count);
    }
  }
}

// @ts-ignore: decorator
@unmanaged
export class PickDigit extends Step {
  word: u32;
  shift: u32;
  isFirst: u32;
  counts: usize;
  searches: usize;
}

export function pickDigit(p: PickDigit): void {
  const budgets = p.gridX;
  for (let budget = takeOne(budgets); budget < budgets; budget = takeOne(budgets)) {
    const counts = p.counts + ((<usize>budget * bins) << 2);
    const search = p.searches + <usize>budget * searchBytes;
    if (p.isFirst != 0) {
      store<u64>(search, 0);
      store<u32>(search, load<u32>(search, 12), 8);
    }
    let left = load<u32>(search, 8);
    let digit = bins - 1;
    while (digit > 0) {
      const count = load<u32>(counts + (<usize>digit << 2));
      if (count >= left) break;
      left -= count;
      digit--;
    }
    const word = search + (<usize>p.word << 2);
    store<u32>(word, load<u32>(word) | (digit << p.shift));
    store<u32>(search, left, 8);
    memory.fill(counts, 0, <usize>bins << 2);
  }
}

// @ts-ignore: decorator
@unmanaged
export class CutBelow extends Step {
  counter: u32;
  values: usize;
  counters: usize;
  stretches: usize;
  searches: usize;
}

export function cutBelow(p: CutBelow): void {
  const items = p.gridX * p.gridY;
  for (let item = takeOne(items); item < items; item = takeOne(items)) {
    const stretch = p.stretches + <usize>(item / p.gridX) * stretchBytes;
    const offset = load<u32>(stretch);
    const length = load<u32>(stretch, 4);
    const search = p.searches + <usize>load<u32>(stretch, 8) * searchBytes;
    const first = load<u32>(stretch, 12);
    const leastSize = load<u32>(search);
    const leastTurned = load<u32>(search, 4);
    const share = item % p.gridX;
    const end = <u32>((<u64>length * (share + 1)) / p.gridX);
    let kept: u32 = 0;
    for (let i = <u32>((<u64>length * share) / p.gridX); i < end; i++) {
      const at = p.values + (<usize>(offset + i) << 2);
      const size = load<u32>(at) & 0x7fffffff;
      if (size > leastSize || (size == leastSize && ~(first + i) >= leastTurned)) {
        if (size != 0) kept++;
      } else store<u32>(at, 0);
    }
    atomic.add<u32>(p.counters + (<usize>p.counter << 2), kept);
  }
}

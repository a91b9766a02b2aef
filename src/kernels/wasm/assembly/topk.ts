import { TopK } from "./generated/records";

/** Whether a value comes before another that was there earlier. NaN comes first, so that the largest shows it. */
// @ts-ignore: decorator
@inline
function before(value: f32, other: f32): bool {
  return !(value <= other) && other == other;
}

/** The k largest of every row, descending, NaN first, ties by the lowest index; one thread, by insertion into a sorted list. */
export function topK(a: TopK): void {
  const rows = a.rows;
  const cols = a.cols;
  const k = a.k;
  for (let r = 0; r < rows; r++) {
    const x = a.x + ((<usize>(r * a.xStride)) << 2);
    const list = a.results + ((<usize>(r * k)) << 3);
    let held = 0;
    let smallest: f32 = -Infinity;
    for (let i = 0; i < cols; i++) {
      const value = load<f32>(x + ((<usize>i) << 2));
      if (held == k && !before(value, smallest)) continue;
      let slot = held < k ? held++ : k - 1;
      for (; slot > 0; slot--) {
        const previous = list + ((<usize>(slot - 1)) << 3);
        if (!before(value, load<f32>(previous, 4))) break;
        store<u64>(previous + 8, load<u64>(previous));
      }
      store<u32>(list + ((<usize>slot) << 3), <u32>i);
      store<f32>(list + ((<usize>slot) << 3), value, 4);
      smallest = load<f32>(list + ((<usize>(held - 1)) << 3), 4);
    }
  }
}

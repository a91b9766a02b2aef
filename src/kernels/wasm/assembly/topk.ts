/**
 * The k largest of every row, descending, ties by the lowest index; one thread, by insertion into a sorted list.
 * @param a x, xStride, rows, cols, k, results: [rows][k] pairs of u32 index, f32 value
 */
export function topK(a: usize): void {
  const rows = load<i32>(a, 8);
  const cols = load<i32>(a, 12);
  const k = load<i32>(a, 16);
  for (let r = 0; r < rows; r++) {
    const x = <usize>load<u32>(a) + ((<usize>(r * load<i32>(a, 4))) << 2);
    const list = <usize>load<u32>(a, 20) + ((<usize>(r * k)) << 3);
    let held = 0;
    let smallest: f32 = -Infinity;
    for (let i = 0; i < cols; i++) {
      const value = load<f32>(x + ((<usize>i) << 2));
      if (held == k && !(value > smallest)) continue;
      let slot = held < k ? held++ : k - 1;
      for (; slot > 0; slot--) {
        const before = list + ((<usize>(slot - 1)) << 3);
        if (!(value > load<f32>(before, 4))) break;
        store<u64>(before + 8, load<u64>(before));
      }
      store<u32>(list + ((<usize>slot) << 3), <u32>i);
      store<f32>(list + ((<usize>slot) << 3), value, 4);
      smallest = load<f32>(list + ((<usize>(held - 1)) << 3), 4);
    }
  }
}

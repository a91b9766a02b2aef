import type { DeviceMemory } from "../compute.js";

type Extents = Readonly<Record<string, number>>;

/** f32 from the beginning of a factor to its end, in fours. */
const reach = (rows: number, stride: number, width: number) => (rows === 0 ? 0 : (rows - 1) * stride + width / 4);

/**
 * A native product would write anywhere: what it is told is held against the buffers. Rows that lie in runs are known to the
 * device alone, which makes the runs itself.
 * @param variant of forms.ts @param matrices batches times heads
 * @throws RangeError
 */
export function checkProduct(
  variant: number,
  p: Extents,
  buffers: Readonly<Record<string, DeviceMemory>>,
  matrices: number,
): void {
  const layout = variant & 3;
  const heads = p.heads - 1;
  const batches = (p.runs > 0 ? p.runs : matrices / p.heads) - 1;
  const factor = (name: "a" | "b" | "c", head: number, length: number) =>
    p[`${name}Offset`] + batches * p[`${name}Batch`] + head * p[`${name}Head`] + length;
  const c = factor("c", heads, reach(p.rows, p.cStride, p.columns));
  const ends: [string, number][] = [
    ["a", factor("a", heads, layout === 2 ? reach(p.depth, p.aStride, p.rows) : reach(p.rows, p.aStride, p.depth))],
    [
      "b",
      factor(
        "b",
        Math.floor(heads / p.bGroup),
        layout === 0 ? reach(p.columns, p.bStride, p.depth) : reach(p.depth, p.bStride, p.columns),
      ),
    ],
    ["c", c],
    ["base", p.accumulate === 0 ? 0 : c],
  ];
  for (const [name, end] of ends) {
    if (16 * end > buffers[name].byteLength) {
      throw new RangeError(`a product reaches byte ${16 * end} of ${name}, which has ${buffers[name].byteLength}`);
    }
  }
  // What lies along a row is read in fours.
  const sizes = [layout === 2 ? p.rows : p.depth, p.columns];
  if (sizes.some((size) => size % 4 !== 0))
    throw new RangeError(`a product of ${p.rows} × ${p.columns} × ${p.depth}; expected fours`);
}

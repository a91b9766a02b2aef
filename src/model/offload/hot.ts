/** Which units are used most, over several streams, and what share of all uses they are. */
export interface HotUnits {
  /** For each stream, ascending. */
  readonly units: readonly Uint32Array[];
  /** Share of the uses of each stream that its hot units cover; 0 where nothing was counted. */
  readonly covered: readonly number[];
}

/**
 * The units that are used most, `most` of them over all streams; of equals those of the first streams, and of those the first. All
 * units of a pool take the same room, so that taking them by frequency is the best placement (PowerInfer, arXiv 2312.12456, solves an
 * integer program because its layers must have a least share).
 * @param counts u32 [units] of every stream
 */
export function hotUnits(counts: readonly Uint32Array[], most: number): HotUnits {
  const uses: { stream: number; unit: number; count: number }[] = [];
  for (const [stream, of] of counts.entries()) {
    for (const [unit, count] of of.entries()) if (count > 0) uses.push({ stream, unit, count });
  }
  uses.sort((a, b) => b.count - a.count || a.stream - b.stream || a.unit - b.unit);
  const chosen = uses.slice(0, Math.max(0, most));
  const ofStream = (stream: number) => chosen.filter((use) => use.stream === stream);
  const sum = (values: Iterable<number>) => Array.from(values).reduce((all, value) => all + value, 0);
  return {
    units: counts.map((_, stream) => Uint32Array.from(ofStream(stream), ({ unit }) => unit).sort()),
    covered: counts.map((of, stream) => {
      const all = sum(of);
      return all === 0 ? 0 : sum(ofStream(stream).map(({ count }) => count)) / all;
    }),
  };
}

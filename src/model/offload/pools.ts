/** Bytes of a slot or a matrix, so that what follows begins where vectors are loaded whole. */
export const align = (bytes: number): number => Math.ceil(bytes / 64) * 64;

/** Slots for units of one size. */
export interface PoolSize<Stream> {
  readonly slotBytes: number;
  readonly slots: number;
  readonly streams: readonly Stream[];
}

/** How room is divided among units of several sizes. */
export interface DividedRoom<Stream> {
  readonly pools: readonly PoolSize<Stream>[];
  /** Bytes of all units. */
  readonly offloadedBytes: number;
  /** The least room that would do, where this is too little. */
  readonly lacking?: number;
}

/** Divides room among units of each size, by the bytes that all of them take. @param least slots that a size needs */
export function divideRoom<Stream>(
  streams: readonly Stream[],
  sizeOf: (stream: Stream) => { unitBytes: number; units: number },
  room: number,
  least: number,
): DividedRoom<Stream> {
  const sizes = new Map<number, { units: number; streams: Stream[] }>();
  let offloadedBytes = 0;
  for (const stream of streams) {
    const { unitBytes, units } = sizeOf(stream);
    const size = sizes.get(unitBytes) ?? { units: 0, streams: [] };
    size.units += units;
    size.streams.push(stream);
    sizes.set(unitBytes, size);
    offloadedBytes += units * unitBytes;
  }
  const pools = Array.from(sizes, ([slotBytes, { units, streams: own }]) => {
    const share = (units * slotBytes) / offloadedBytes;
    return { slotBytes, streams: own, slots: Math.min(units, Math.max(0, Math.floor((room * share) / slotBytes))) };
  });
  const needs = Array.from(sizes.values(), ({ units }) => (Math.min(least, units) * offloadedBytes) / units);
  const enough = pools.every(({ slots, slotBytes }) => slots >= Math.min(least, sizes.get(slotBytes)!.units));
  return { pools, offloadedBytes, ...(!enough && { lacking: Math.ceil(Math.max(...needs)) }) };
}

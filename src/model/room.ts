/** Slots that a cache has room for come in so many. */
const granularity = 32;

/** With a quarter of room to spare. */
const ample = (wanted: number, most: number): number =>
  Math.min(most, granularity * Math.ceil((wanted * 1.25) / granularity));

/**
 * Room of a cache whose layers hold as many tokens as they need: more where the next pass does not fit, less where less than
 * half of it is used.
 * @param slots of each layer now @param held tokens of each @param rows of the next pass @param most slots of a layer
 * @returns undefined where it stays
 */
export function fittedRoom(
  slots: readonly number[],
  held: readonly number[],
  rows: number,
  most: number,
): number[] | undefined {
  const fitted = slots.map((room, layer) => {
    const wanted = held[layer] + rows;
    const fits = wanted <= room && 2 * (wanted + granularity) > room;
    return fits ? room : ample(wanted, most);
  });
  return fitted.every((room, layer) => room === slots[layer]) ? undefined : fitted;
}

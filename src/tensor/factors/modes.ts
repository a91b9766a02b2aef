/** Sizes of the axes that a length is cut into. */
export const productOfModes = (modes: readonly number[]): number => modes.reduce((all, mode) => all * mode, 1);

/** Digits of `index` in base `modes`, the first the most significant. */
export function digitsOf(index: number, modes: readonly number[]): number[] {
  const digits = new Array<number>(modes.length);
  let rest = index;
  for (let k = modes.length - 1; k >= 0; k--) {
    digits[k] = rest % modes[k];
    rest = Math.floor(rest / modes[k]);
  }
  return digits;
}

/** What is wrong with modes that are to cover a matrix: columns exactly, rows at least. */
export function modeProblems(
  { rowModes, colModes }: { rowModes: readonly number[]; colModes: readonly number[] },
  { rows, cols }: { rows: number; cols: number },
): string[] {
  const problems: string[] = [];
  const times = (modes: readonly number[]) => modes.join(" · ");
  if (rowModes.length !== colModes.length)
    problems.push(`${rowModes.length} row modes and ${colModes.length} column modes`);
  if (productOfModes(colModes) !== cols) problems.push(`column modes ${times(colModes)} do not make ${cols}`);
  if (productOfModes(rowModes) < rows) problems.push(`row modes ${times(rowModes)} do not reach ${rows}`);
  // Padding beyond every digit would be rows that nobody reads.
  else if (productOfModes(rowModes) >= 2 * rows + 64)
    problems.push(`row modes ${times(rowModes)} are far more than ${rows}`);
  return problems;
}

/**
 * Cuts a length into `order` sizes as equal as can be, the last and the first of them multiples of 4 where that is possible: the
 * products of a chain come in fours.
 * @param exact the sizes make the length; otherwise they may go beyond it, as little as can be
 */
export function balancedModes(length: number, order: number, exact: boolean): number[] {
  if (order === 1) return [length];
  const wanted = length ** (1 / order);
  let best: number[] | undefined;
  let bestCost = Number.POSITIVE_INFINITY;
  const most = Math.min(length, Math.ceil(wanted * 4) + 4);
  const candidates = exact
    ? Array.from({ length: most }, (_, i) => i + 1).filter((first) => length % first === 0)
    : around(wanted);
  for (const first of candidates) {
    const rest = balancedModes(exact ? length / first : Math.ceil(length / first), order - 1, exact);
    const modes = [first, ...rest];
    const uneven = modes.reduce((sum, mode) => sum + Math.abs(Math.log(mode / wanted)), 0);
    const odd = [first, modes.at(-1)!].filter((mode) => mode % 4 !== 0).length;
    const beyond = productOfModes(modes) / length - 1;
    const cost = uneven + 8 * odd + 4 * beyond;
    if (cost < bestCost) [best, bestCost] = [modes, cost];
  }
  return best ?? [length, ...new Array<number>(order - 1).fill(1)];
}

/** Sizes near a wanted one. */
const around = (wanted: number): number[] =>
  Array.from({ length: 9 }, (_, i) => Math.max(1, Math.round(wanted / 4) * 4 + 4 * (i - 4))).filter(
    (size, i, all) => all.indexOf(size) === i,
  );

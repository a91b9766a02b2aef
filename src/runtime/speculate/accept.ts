/**
 * The rule of speculative sampling (Leviathan et al., 2211.17192; Chen et al., 2302.01318): a proposed token x is accepted with
 * probability min(1, p(x) / q(x)); the first that is not is drawn anew from max(p − q, 0), and where all were accepted one more
 * from p. What comes out is distributed as if drawn from p, whatever q is.
 * @param ids what was proposed
 * @param proposal q of each, or nothing where it was certain
 * @param target p at each, and behind the last
 * @param uniform a number from [0, 1), anew with every call
 * @param draw draws from weights that need not sum to 1
 * @returns how many were accepted, and the token after them
 */
export function accept(
  ids: readonly number[],
  proposal: (i: number) => Float64Array | undefined,
  target: (i: number) => Float64Array,
  uniform: () => number,
  draw: (weights: Float64Array) => number,
): { accepted: number; next: number } {
  for (const [i, id] of ids.entries()) {
    const p = target(i);
    const q = proposal(i);
    if (uniform() * (q === undefined ? 1 : q[id]) < p[id]) continue;
    const rest = p.slice();
    if (q === undefined) rest[id] = 0;
    else for (let v = 0; v < Math.min(p.length, q.length); v++) rest[v] = Math.max(0, p[v] - q[v]);
    // Nothing is left where p and q differ by rounding alone.
    return { accepted: i, next: draw(rest.some((share) => share > 0) ? rest : p) };
  }
  return { accepted: ids.length, next: draw(target(ids.length)) };
}

/** Of a greedy choice: accepted is what the target would have chosen itself. @param best the target's choices */
export function acceptGreedy(ids: readonly number[], best: readonly number[]): { accepted: number; next: number } {
  let accepted = 0;
  while (accepted < ids.length && ids[accepted] === best[accepted]) accepted++;
  return { accepted, next: best[accepted] };
}

const found = new Map<string, unknown>();

/**
 * What `compute` makes of a case that the key says all of: a process that tests several backends computes it once. Nobody may
 * change it.
 */
export function once<T>(key: unknown, compute: () => T): T {
  const name = JSON.stringify(key);
  if (!found.has(name)) found.set(name, compute());
  return found.get(name) as T;
}

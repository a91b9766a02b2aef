/** What was made under a name before, or is made now. */
export function made<K, T>(
  all: { get(name: K): T | undefined; set(name: K, value: T): unknown },
  name: K,
  make: () => T,
): T {
  let value = all.get(name);
  if (value === undefined) {
    value = make();
    all.set(name, value);
  }
  return value;
}

/** The name of a model in the store, without the address it came from. */
export const shortName = (location: string): string =>
  location
    .replace(/\/resolve\/main\/$/, "")
    .split("/")
    .filter(Boolean)
    .pop() ?? location;

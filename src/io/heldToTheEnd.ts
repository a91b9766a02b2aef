/**
 * What is read as a whole when some rows of a matrix are wanted, and let go behind its last row: of matrices that lie with
 * their rows side by side, every row needs all of it.
 */
export function heldToTheEnd<T>(rows: number, load: () => Promise<T>): (start: number, count: number) => Promise<T> {
  let held: Promise<T> | undefined;
  return async (start, count) => {
    held ??= load();
    const wanted = held;
    if (start + count >= rows) held = undefined;
    try {
      return await wanted;
    } catch (error) {
      held = undefined;
      throw error;
    }
  };
}

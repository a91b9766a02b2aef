/** Calls `visit` for every run of entries of [rows, cols] that shares a grid: its number and the run [from, to). */
export function forEachGroup(
  rows: number,
  cols: number,
  groupSize: number,
  visit: (group: number, from: number, to: number) => void,
): void {
  for (let r = 0, group = 0; r < rows; r++) {
    for (let c = 0; c < cols; c += groupSize, group++)
      visit(group, r * cols + c, r * cols + Math.min(cols, c + groupSize));
  }
}

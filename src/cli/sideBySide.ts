/** Breaks a text into lines of at most `width` characters, at spaces where there are any; its own line breaks stay. */
export function wrap(text: string, width: number): string[] {
  return text.split("\n").flatMap((paragraph) => {
    const lines: string[] = [];
    let line = "";
    for (const word of paragraph.split(" ")) {
      if (line !== "" && line.length + 1 + word.length > width) {
        lines.push(line);
        line = word;
      } else {
        line = line === "" ? word : `${line} ${word}`;
      }
      for (; line.length > width; line = line.slice(width)) lines.push(line.slice(0, width));
    }
    return [...lines, line];
  });
}

/** Texts in columns under their titles. */
export function sideBySide(columns: readonly { title: string; text: string }[], width: number): string {
  const gap = " │ ";
  const each = Math.floor((width - gap.length * (columns.length - 1)) / columns.length);
  const wrapped = columns.map(({ text }) => wrap(text, each));
  const row = (cells: readonly string[]) =>
    cells
      .map((cell) => cell.padEnd(each))
      .join(gap)
      .trimEnd();
  const height = Math.max(...wrapped.map((lines) => lines.length));
  return [
    row(columns.map(({ title }) => title.slice(0, each))),
    columns.map(() => "─".repeat(each)).join("─┼─"),
    ...Array.from({ length: height }, (_, i) => row(wrapped.map((lines) => lines[i] ?? ""))),
  ].join("\n");
}

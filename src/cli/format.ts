/** Numbers and tables as people read them. Everything here returns text; nothing writes. */

/** "0:07", "12:30", "1:02:03". */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const two = (n: number) => String(n).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

/** Decimal units, three digits: "13.1 MB", "4.05 GB". */
export function bytes(count: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : digits(value, 3)} ${units[unit]}`;
}

/** "6.52 M", "1.10 B": counts of parameters. */
export function count(value: number): string {
  if (value < 1e3) return String(value);
  const [divisor, unit] = value < 999.5e3 ? [1e3, "k"] : value < 999.5e6 ? [1e6, "M"] : [1e9, "B"];
  return `${digits(value / divisor, 3)} ${unit}`;
}

/** Fixed-point with `significant` digits: 37.5, 4.21, 0.0312, 1201. */
export function digits(value: number, significant: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (value === 0) return "0";
  const magnitude = Math.floor(Math.log10(Math.abs(Number(value.toPrecision(significant)))));
  return value.toFixed(Math.max(0, significant - 1 - magnitude));
}

export const percent = (share: number, places = 0): string => `${(share * 100).toFixed(places)} %`;

export interface Column<Row> {
  /** Heading; a line break makes two heading lines. */
  title: string;
  cell: (row: Row) => string;
  align?: "left" | "right";
}

/** Columns padded to their widest cell, a rule under the heading, two spaces between. Right-aligned unless told. */
export function table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const headings = columns.map((column) => column.title.split("\n"));
  const headingLines = Math.max(...headings.map((lines) => lines.length));
  const cells = rows.map((row) => columns.map((column) => column.cell(row)));
  const widths = columns.map((_, c) =>
    Math.max(...headings[c].map((line) => line.length), ...cells.map((row) => row[c].length)),
  );
  const line = (texts: readonly string[]) =>
    texts
      .map((text, c) => (columns[c].align === "left" ? text.padEnd(widths[c]) : text.padStart(widths[c])))
      .join("  ")
      .trimEnd();
  const heading = Array.from({ length: headingLines }, (_, i) =>
    // Short headings sit on the rule.
    line(headings.map((lines) => lines[i - (headingLines - lines.length)] ?? "")),
  );
  return [...heading, widths.map((width) => "─".repeat(width)).join("  "), ...cells.map(line)].join("\n");
}

/** "name   value" lines, the values in one column. */
export function facts(pairs: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return pairs.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join("\n");
}

/** Names and texts from files, with control characters spelled out so that they cannot drive the terminal. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Text of a model for the terminal: line breaks and tabs pass, other control characters are spelled out. */
export const terminalText = (text: string): string => text.replace(/[^\n\t]+/g, printable);

import { escapeXml, frame } from "./chart.js";

/** A matrix as grey levels, 0 white to 255 black, one byte an entry, base64: small enough to keep in a result. */
export interface GreyMap {
  rows: number;
  cols: number;
  /** Value of the darkest level. */
  max: number;
  data: string;
}

/** @param values [rows, cols], none below 0 */
export function greyMap(values: ArrayLike<number>, rows: number, cols: number): GreyMap {
  let max = 0;
  for (let i = 0; i < values.length; i++) max = Math.max(max, values[i]);
  const levels = Uint8Array.from(values, (v) => (max === 0 ? 0 : Math.round((255 * v) / max)));
  return { rows, cols, max, data: toBase64(levels) };
}

export interface Panel {
  title: string;
  map: GreyMap;
}

const panelWidth = 240;
const panelHeight = 240;

/** Panels side by side, each stretched to one size. */
export async function heatMaps(title: string, panels: readonly Panel[]): Promise<string> {
  const parts: string[] = [];
  for (const [i, { title, map }] of panels.entries()) {
    const x = 16 + i * (panelWidth + 24);
    const png = await greyPng(fromBase64(map.data), map.rows, map.cols);
    parts.push(
      `<text x="${x}" y="52">${escapeXml(title)}</text>` +
        `<image x="${x}" y="60" width="${panelWidth}" height="${panelHeight}" preserveAspectRatio="none" style="image-rendering:pixelated" href="data:image/png;base64,${toBase64(png)}"/>` +
        `<rect x="${x}" y="60" width="${panelWidth}" height="${panelHeight}" fill="none" stroke="#888"/>`,
    );
  }
  const width = 16 + panels.length * (panelWidth + 24);
  return frame(
    width,
    76 + panelHeight,
    title,
    `<text x="16" y="24" font-weight="bold">${escapeXml(title)}</text>${parts.join("")}`,
  );
}

/** An 8-bit grey PNG; levels are darkness, so they are inverted. */
async function greyPng(levels: Uint8Array, rows: number, cols: number): Promise<Uint8Array> {
  const scanlines = new Uint8Array(rows * (cols + 1));
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) scanlines[r * (cols + 1) + 1 + c] = 255 - levels[r * cols + c];
  }
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, cols);
  view.setUint32(4, rows);
  header[8] = 8;
  const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
  const chunks = [
    signature,
    chunk("IHDR", header),
    chunk("IDAT", await deflate(scanlines)),
    chunk("IEND", new Uint8Array()),
  ];
  const whole = new Uint8Array(chunks.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of chunks) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Length, type, data, CRC-32 of type and data. */
function chunk(type: string, data: Uint8Array): Uint8Array {
  const out = new Uint8Array(12 + data.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  out.set(new TextEncoder().encode(type), 4);
  out.set(data, 8);
  view.setUint32(8 + data.length, crc32(out.subarray(4, 8 + data.length)));
  return out;
}

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

async function deflate(bytes: Uint8Array): Promise<Uint8Array> {
  const stream = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

const fromBase64 = (text: string) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

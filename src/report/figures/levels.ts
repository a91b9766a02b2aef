import { fromBase64, toBase64 } from "./bytes.js";
import { type Html, html } from "./html.js";
import { greyPngUrl } from "./png.js";
import type { Picture } from "./svg.js";

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

const [side, gap, top] = [240, 24, 24];

/** Maps side by side, each stretched to one size, dark where values are large. */
export async function levelPanels(title: string, panels: readonly Panel[]): Promise<Picture> {
  const bodies: Html[] = [];
  for (const [i, { title, map }] of panels.entries()) {
    const x = 16 + i * (side + gap);
    const darkness = fromBase64(map.data);
    const url = await greyPngUrl(
      darkness.map((level) => 255 - level),
      map.cols,
      map.rows,
    );
    bodies.push(html`<text x="${x}" y="${top - 8}">${title}</text>
<image x="${x}" y="${top}" width="${side}" height="${side}" preserveAspectRatio="none" style="image-rendering:pixelated" href="${url}"/>
<rect x="${x}" y="${top}" width="${side}" height="${side}" class="panel"/>`);
  }
  return { width: 16 + panels.length * (side + gap), height: top + side + 16, title, body: html`${bodies}` };
}

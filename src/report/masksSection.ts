import type { Run } from "./data.js";
import { greyPngUrl, type Html, html } from "./figures/index.js";
import type { MaskPicture } from "./masks.js";

/** A few weights are 0 by chance; a picture is of what was made so. */
const fewestZeros = 0.005;

/** Pictures of which weights are kept. */
export async function masksSection({ candidates }: Run): Promise<Html | undefined> {
  const pictures = await Promise.all(
    candidates.flatMap(({ name, masks = [] }) =>
      masks.filter(({ overview }) => meanOf(overview.pixels) > fewestZeros * 255).map((mask) => maskFigure(name, mask)),
    ),
  );
  if (pictures.length === 0) return undefined;
  return html`<h2>Masks</h2>
<p class="soft">Dark is kept, light is zero. First the upper left corner, one pixel a weight; below it the whole matrix, cells shaded by their share of zeros.</p>
<div class="pictures">${pictures}</div>`;
}

const meanOf = (values: Uint8Array) => values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);

async function maskFigure(name: string, { name: tensor, rows, cols, corner, overview }: MaskPicture): Promise<Html> {
  const picture = async ({ pixels, width, height }: MaskPicture["corner"]) =>
    html`<img alt="" width="${width}" height="${height}" src="${await greyPngUrl(pixels, width, height)}">`;
  const [, layer, matrix] = /\.layers\.(\d+)\..*?([^.]+)\.weight$/.exec(tensor) ?? [];
  const where = layer === undefined ? tensor : `layer ${layer}, ${matrix}`;
  return html`<figure>${await picture(corner)}${await picture(overview)}<figcaption><b>${name}</b><br>${where}<br>${rows} × ${cols}</figcaption></figure>`;
}

import type { Picture } from "../protocol.js";
import { percent, scrolling } from "./page.js";

/** Height of one layer's strip in CSS pixels, for few layers and for many. */
const stripHeight = (layers: number) => Math.min(28, Math.max(6, Math.floor(320 / layers)));

/** Colours of the shares 0 … 255: from that of the legend's `skipped` to that of its `kept`. */
function palette(): Uint32Array {
  const context = new OffscreenCanvas(256, 1).getContext("2d")!;
  const gradient = context.createLinearGradient(0, 0, 255, 0);
  for (const [stop, name] of ["skipped", "kept"].entries()) {
    gradient.addColorStop(stop, getComputedStyle(document.querySelector(`.key.${name}`)!).backgroundColor);
  }
  context.fillStyle = gradient;
  context.fillRect(0, 0, 256, 1);
  return new Uint32Array(context.getImageData(0, 0, 256, 1).data.buffer);
}

/**
 * A picture as a table: a row of strips per layer, a column per linear map. What the canvases show is also there in words:
 * the mean of each column in its heading, each strip in its cell's label.
 */
export class HeatMap {
  readonly #host: HTMLElement;
  #cells: { canvas: HTMLCanvasElement; cell: HTMLTableCellElement }[][] = [];
  #means: HTMLElement[] = [];
  #shape = "";
  #last: Picture | undefined;

  constructor(host: HTMLElement) {
    this.#host = scrolling(host, "Inputs skipped, by layer and projection");
  }

  /** Draws what is shown once more, after the colours of the page have changed. */
  recolour(): void {
    if (this.#last !== undefined) this.show(this.#last);
  }

  show(picture: Picture): void {
    this.#last = picture;
    const shape = `${picture.layers} ${picture.bins} ${picture.maps}`;
    if (shape !== this.#shape) this.#build(picture);
    this.#shape = shape;
    const colours = palette();
    const { layers, maps, bins, kept } = picture;
    const skippedOf = maps.map(() => 0);
    for (let layer = 0; layer < layers; layer++) {
      for (const [m, role] of maps.entries()) {
        const start = (layer * maps.length + m) * bins;
        const strip = kept.subarray(start, start + bins);
        const skipped = 1 - strip.reduce((sum, value) => sum + value, 0) / (255 * bins);
        skippedOf[m] += skipped / layers;
        const { canvas, cell } = this.#cells[layer][m];
        cell.title = `layer ${layer}, ${role}: ${percent(skipped)} skipped`;
        const image = new ImageData(bins, 1);
        new Uint32Array(image.data.buffer).set(Array.from(strip, (value) => colours[value]));
        canvas.getContext("2d")!.putImageData(image, 0, 0);
      }
    }
    for (const [p, mean] of this.#means.entries()) mean.textContent = percent(skippedOf[p]);
  }

  #build({ layers, maps, bins }: Picture): void {
    const table = document.createElement("table");
    table.createCaption().textContent = "Share of inputs skipped at the last watched token; one row per layer";
    table.caption!.className = "visually-hidden";
    const heading = table.createTHead().insertRow();
    heading.append(Object.assign(document.createElement("th"), { textContent: "layer", scope: "col" }));
    this.#means = maps.map((role) => {
      const cell = Object.assign(document.createElement("th"), { scope: "col" });
      const mean = document.createElement("span");
      cell.append(role, mean);
      heading.append(cell);
      return mean;
    });
    const body = table.createTBody();
    this.#cells = Array.from({ length: layers }, (_, layer) => {
      const row = body.insertRow();
      row.append(Object.assign(document.createElement("th"), { textContent: String(layer), scope: "row" }));
      return maps.map(() => {
        const cell = row.insertCell();
        const canvas = Object.assign(document.createElement("canvas"), { width: bins, height: 1 });
        canvas.style.height = `${stripHeight(layers)}px`;
        cell.append(canvas);
        return { canvas, cell };
      });
    });
    this.#host.replaceChildren(table);
  }
}

import { Html, html } from "./html.js";

/** A drawing: on a page it is an inline `<svg>` that takes the page's colours, as a file it stands for itself. */
export interface Picture {
  width: number;
  height: number;
  /** What it shows; read aloud in place of the drawing. */
  title: string;
  body: Html;
}

/** Told apart with all common kinds of colour blindness, on white and on black (Okabe and Ito). */
export const palette = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c00", "#808080"];

/** How the classes of all figures look. The variables are the page's; a file has none and takes the fallbacks. */
export const svgStyle = new Html(`
svg text { font-size: 11px; fill: var(--ink, #1a1d21); } svg text.axis { fill: var(--soft, #667080); } svg text.heading { font-weight: 600; font-size: 12px; }
svg text.name { paint-order: stroke; stroke: var(--paper, #fff); stroke-width: 3px; } svg text.light { fill: var(--paper, #fff); }
.grid { stroke: var(--line, #d8dde3); } .line { fill: none; stroke-width: 1.6; } .front { fill: none; stroke: var(--soft, #667080); stroke-dasharray: 3 3; }
.series { fill: none; stroke-opacity: .55; } .beyond { fill: var(--paper, #fff); stroke-width: 1.6; } .reference { stroke: var(--ink, #1a1d21); stroke-width: 2; fill: none; }
.cell, .bar { fill: var(--accent, #2563a8); } .threshold { stroke: #c2410c; stroke-width: 1.5; } .panel { fill: none; stroke: var(--soft, #667080); }
`);

/** A picture under its caption, for a page. */
export const figure = ({ width, height, title, body }: Picture): Html => html`<figure>
<figcaption>${title}</figcaption>
<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${title}">
${body}
</svg>
</figure>`;

const headingHeight = 28;

/** A picture as an SVG file, its title above it, black on white. */
export function svgFile({ width, height, title, body }: Picture): string {
  return html`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 ${-headingHeight} ${width} ${height + headingHeight}" font-family="sans-serif">
<title>${title}</title><style>${svgStyle}</style>
<rect y="${-headingHeight}" width="${width}" height="${height + headingHeight}" fill="#fff"/>
<text x="${width / 2}" y="-10" text-anchor="middle" class="heading">${title}</text>
${body}
</svg>
`.text;
}

/** A length in a drawing: a tenth of a unit is exact enough and keeps files short. */
export const px = (value: number): number => Number(value.toFixed(1));

import { type Html, html } from "./figures/index.js";

/** More models than this are folded away together: on a phone their titles alone are pages. */
const manyModels = 6;

export const folded = (title: string, models: number, content: Html): Html =>
  models <= manyModels ? content : html`<details><summary>${title}</summary>${content}</details>`;

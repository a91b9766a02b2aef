// rarefy in a page: what run-browser.mjs calls.

import { urlFiles } from "../../dist/io/index.js";
import { openOurs } from "../ours.mjs";

let ours;

globalThis.open = async (url, options) => {
  ours = await openOurs(urlFiles(new URL(url, location.href).href), options);
  const { description, threads, variants } = ours;
  return { description, threads, sparsities: variants.map(({ sparsity }) => sparsity) };
};

globalThis.measure = (variant, job) => ours.variants[variant].measure(job);

import { fileURLToPath } from "node:url";
import { UsageError } from "../core/index.js";

/** What comes with the package. This file lies in dist/io/ when it runs. */
const packaged = (path: string) => fileURLToPath(new URL(`../../models/${path}`, import.meta.url));

const models = { "tiny-6m": "tiny-6m" } as const;
const texts = { "tiny-6m:calib": "text/calib.txt", "tiny-6m:eval": "text/books-eval.txt" } as const;

/** Names of the models that come with the package. */
export type BundledModel = keyof typeof models;
/** The text that `tiny-6m` is calibrated on, and one of books that it never saw. */
export type BundledText = keyof typeof texts;

/** Whether a model of this name comes with the package. */
export const isBundledModel = (name: string): name is BundledModel => Object.hasOwn(models, name);
/** Whether a text of this name comes with the package. */
export const isBundledText = (name: string): name is BundledText => Object.hasOwn(texts, name);

/** The directory of a model that comes with the package, wherever that is installed. @throws UsageError for another name */
export function bundledModel(name: BundledModel): string {
  if (isBundledModel(name)) return packaged(models[name]);
  throw new UsageError(`${name} does not come with rarefy; what does: ${Object.keys(models).join(", ")}`);
}

/** The path of a text that comes with the package. @throws UsageError for another name */
export function bundledText(name: BundledText): string {
  if (isBundledText(name)) return packaged(texts[name]);
  throw new UsageError(`${name} does not come with rarefy; what does: ${Object.keys(texts).join(", ")}`);
}

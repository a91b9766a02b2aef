import { fileURLToPath } from "node:url";

/** What comes with the package, as paths. This file lies in dist/cli/ when it runs. */
const packaged = (path: string) => fileURLToPath(new URL(`../../models/${path}`, import.meta.url));

export const embeddedModel = packaged("tiny-6m");
export const embeddedTexts = { calibration: packaged("text/calib.txt"), evaluation: packaged("text/books-eval.txt") };

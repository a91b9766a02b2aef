import { bundledModel, bundledText } from "../io/index.node.js";

/** The model that comes with the package, by its name and where it lies. */
export const embeddedName = "tiny-6m";
export const embeddedModel = bundledModel(embeddedName);
export const embeddedTexts = { calibration: bundledText("tiny-6m:calib"), evaluation: bundledText("tiny-6m:eval") };

import { bundledModel, bundledText } from "../io/index.node.js";

export const embeddedModel = bundledModel("tiny-6m");
export const embeddedTexts = { calibration: bundledText("tiny-6m:calib"), evaluation: bundledText("tiny-6m:eval") };

import { trainFew } from "../trainFew.js";

declare global {
  var trainHere: typeof trainFew;
}

globalThis.trainHere = trainFew;

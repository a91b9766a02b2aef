import { generate } from "./generate.js";

globalThis.generate = generate;

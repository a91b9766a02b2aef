import * as z from "zod/mini";
import { adamW } from "../optimizers/adamW.js";
import { plainDevice } from "../resident.js";
import type { TrainMethod } from "./contract.js";

const options = z.strictObject({});

/** Plain training: what every method is compared with. */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "dense",
  title: "Dense",
  paper: "Loshchilov, Hutter 2019, arXiv:1711.05101",
  options,
  start: ({ optimizer }) => ({
    link: adamW(optimizer),
    state: {},
    device: plainDevice,
  }),
};

import { type Experiment, experiments as ofTraining } from "../../train/index.js";

/** Every experiment, by the name the command line knows it by: those of training, and those that are made of jobs. */
export const experiments: Readonly<Record<string, () => Promise<{ experiment: Experiment }>>> = {
  ...ofTraining,
  "five-schemes": () => import("./fiveSchemes.js"),
};

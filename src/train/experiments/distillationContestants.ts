import type { DistillationId } from "../models/distillation.js";
import type { MiniLlmOptions } from "../models/miniLlmOptions.js";

/** A way to learn from a teacher; what is left out is not done. */
export interface Contestant {
  title: string;
  /** Who writes the responses that are learnt. Default: they are those of the task. */
  responses?: "sampled" | "greedy";
  /** The first half of the steps is SFT: who keeps to what is likely must know something first. */
  afterSft?: true;
  /** Takes the place of the text's own loss, by this share. */
  distillation?: { share: number; loss: DistillationId; miniLlm?: Partial<MiniLlmOptions> };
  /** Weights of matching, as `matchingSchema` has them. */
  match?: { hidden: number; relations: number };
}

/** Of the task with reports. */
export const students: Readonly<Record<string, Contestant>> = {
  sft: { title: "SFT, the texts alone" },
  "seqkd-sampled": { title: "SeqKD, texts drawn from the teacher", responses: "sampled" },
  "seqkd-greedy": { title: "SeqKD, the teacher's likeliest tokens", responses: "greedy" },
  kd: { title: "KD, forward KL", distillation: { share: 1, loss: "kl" } },
  "reverse-kl": { title: "reverse KL of tokens", distillation: { share: 1, loss: "reverse-kl" } },
  "sft-reverse-kl": {
    title: "reverse KL of tokens, after SFT",
    afterSft: true,
    distillation: { share: 1, loss: "reverse-kl" },
  },
  minillm: { title: "MiniLLM, after SFT", afterSft: true, distillation: { share: 1, loss: "minillm" } },
  hidden: { title: "the texts and hidden states", match: { hidden: 1, relations: 0 } },
  "kd-hidden": {
    title: "KD and hidden states",
    distillation: { share: 1, loss: "kl" },
    match: { hidden: 1, relations: 0 },
  },
};

/** Of a language model at the scale of a GPU: what learns from a text. */
export const languageModels: Readonly<Record<string, Contestant>> = {
  text: { title: "the text alone" },
  kd: { title: "KD, forward KL", distillation: { share: 0.5, loss: "kl" } },
  hidden: { title: "the text and hidden states", match: { hidden: 1, relations: 0 } },
  "kd-hidden": {
    title: "KD and hidden states",
    distillation: { share: 0.5, loss: "kl" },
    match: { hidden: 1, relations: 0 },
  },
};

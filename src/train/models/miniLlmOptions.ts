import * as z from "zod";

/** How a student learns from texts that it writes itself, its teacher at its elbow (MiniLLM); the defaults are as published. */
export const miniLlmSchema = z.strictObject({
  length: z.int().min(1).max(65_536).default(16).describe("tokens written behind the beginning of every window"),
  teacherMix: z
    .number()
    .min(0)
    .lt(1)
    .default(0.2)
    .describe("share of the teacher in what tokens are drawn from; 0: the student writes alone"),
  singleStep: z
    .boolean()
    .default(true)
    .describe("take the reverse KL of the next token exactly, and leave to what was drawn what comes later"),
  lengthNormalised: z.boolean().default(true).describe("divide what comes later by how many tokens that is"),
  importance: z
    .enum(["token", "text"])
    .default("token")
    .describe("what makes up for the teacher's share: the ratio of the token drawn, or of the whole text (exact)"),
});

/** `miniLlmSchema` with its defaults. */
export type MiniLlmOptions = z.output<typeof miniLlmSchema>;

/** As published. */
export const miniLlmDefaults: MiniLlmOptions = miniLlmSchema.parse({});

/** Names in a batch: tokens of the texts written so far, int32 [texts · window], and what follows each, −1 where nothing was drawn. */
export const [writtenName, drawnName] = ["written", "drawn"];
/** f32 [texts · window]: what makes up for the teacher's share, and what came of the token drawn: its return. */
export const [importanceName, returnName] = ["importance", "return"];
/** f32 [texts · window, vocabSize]: the teacher's logits on the texts written. */
export const judgementName = "judgement";

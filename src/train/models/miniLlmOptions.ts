import * as z from "zod/mini";

/** How a student learns from texts that it writes itself, its teacher at its elbow (MiniLLM); the defaults are as published. */
export const miniLlmSchema = z.strictObject({
  /** Tokens written behind the beginning of every window. */
  length: z._default(z.int().check(z.gte(1), z.lte(65_536)), 16),
  /** Share of the teacher in what tokens are drawn from; 0: the student writes alone. */
  teacherMix: z._default(z.number().check(z.gte(0), z.lt(1)), 0.2),
  /** Take the reverse KL of the next token exactly, and leave to what was drawn what comes later. */
  singleStep: z._default(z.boolean(), true),
  /** Divide what comes later by how many tokens that is. */
  lengthNormalised: z._default(z.boolean(), true),
  /** What makes up for the teacher's share: the ratio of the token drawn, or of the whole text (exact). */
  importance: z._default(z.enum(["token", "text"]), "token"),
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

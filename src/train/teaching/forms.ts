import type { TrainingRecord } from "../data/records.js";

/** What is learnt of an answer, or why it is left out. */
export type Learnt = Pick<TrainingRecord, "response" | "rationale"> | { leftOut: string };

/** What a student is to learn from what a teacher writes. */
export interface TeachingForm {
  /** For help and messages. */
  readonly what: string;
  /** What the teacher is told and the student is not. */
  readonly instruction?: string;
  /** How the student sees a prompt, which stands for `{prompt}`. */
  readonly template: string;
  /** Whether the teacher is asked as in a chat, where nothing else is said. */
  readonly chat: boolean;
  /** Whether an answer that was cut says nothing. */
  readonly whole: boolean;
  /** @param mark what the answer proper begins with */
  learnt(answer: string, mark: string): Learnt;
}

const asItIs = (response: string): Learnt => ({ response });

/** Every form, by its id. */
export const teachingForms = {
  completion: {
    what: "the text goes on (SeqKD)",
    template: "{prompt}",
    chat: false,
    whole: false,
    learnt: asItIs,
  },
  "chain-of-thought": {
    what: "reasons, then the answer behind a mark; both are learnt",
    instruction: 'Think step by step. End with a line that begins with "{mark}" and gives the answer alone.',
    template: "{prompt}",
    chat: true,
    whole: true,
    learnt(answer, mark) {
      const at = answer.lastIndexOf(mark);
      if (at < 0 || answer.slice(at + mark.length).trim() === "") return { leftOut: "no answer behind its mark" };
      const [rationale, response] = [answer.slice(0, at), answer.slice(at)];
      return rationale.trim() === "" ? { leftOut: "no reasons before the answer" } : { rationale, response };
    },
  },
  instruction: {
    what: "an instruction is followed",
    template: "### Instruction:\n{prompt}\n\n### Response:\n",
    chat: true,
    whole: true,
    learnt: asItIs,
  },
} as const satisfies Readonly<Record<string, TeachingForm>>;

/** The id of a form. */
export type TeachingFormId = keyof typeof teachingForms;

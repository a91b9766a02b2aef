import { UsageError } from "../../core/index.js";
import type { ChatMessage } from "../../text/index.js";
import { givenText, maxDemonstrations, type TrainingRecord } from "../data/records.js";
import { permutation, randomFor } from "../seeds.js";
import { type TeachingForm, type TeachingFormId, teachingForms } from "./forms.js";
import type { TeachingPrompt } from "./prompts.js";

/** What a teacher is asked: as a text to go on with, and as a chat to answer. It takes the one or the other. */
export interface TeachingQuestion {
  text: string;
  messages: readonly ChatMessage[];
  /** For answers that are drawn; below 2³¹. */
  seed: number;
}

/** What a teacher wrote. */
export interface TeachingAnswer {
  text: string;
  /** Whether it came to an end by itself. */
  finished: boolean;
}

/** A model that answers: one in memory, or one behind an address. */
export interface RecordTeacher {
  /** For the record: directory, Hub id or address. */
  readonly location: string;
  /** All of it that decides what it answers, as JSON. Never a key. */
  readonly identity: object;
  answer(question: TeachingQuestion, signal: AbortSignal | undefined): Promise<TeachingAnswer>;
}

/** What becomes of prompts and answers. */
export interface LessonSettings {
  form: TeachingFormId;
  /** What the teacher is told and the student is not. Default: as the form says. */
  instruction?: string;
  /** How the student sees a prompt, which stands for `{prompt}`. Default: as the form says. */
  template?: string;
  /** What the answer proper begins with, in a chain of thought. Default "Answer:". */
  answerMark?: string;
  /** Records that are shown before every prompt, behind those of its own (in-context). */
  demonstrations?: readonly TrainingRecord[];
  /** How many of them, drawn for each prompt. Default: all, in their order. */
  shots?: number;
  /** The student learns without what the teacher was shown (context distillation). Default false. */
  forgetDemonstrations?: boolean;
  /** Answers to each prompt. Default 1. */
  samples?: number;
  /** Decides which demonstrations are drawn, and seeds the answers. Default 0. */
  seed?: number;
}

const place = "{prompt}";

/** Questions to a teacher, in order, and the records that its answers make. */
export class Lessons {
  /** Questions: every prompt, as often as it is asked. */
  readonly count: number;
  readonly #form: TeachingForm;
  readonly #samples: number;

  /** @throws UsageError for a template without a place for the prompt, and for more shots or fewer samples than there can be */
  constructor(
    readonly prompts: readonly TeachingPrompt[],
    readonly settings: LessonSettings,
  ) {
    const { form, template = place, shots = 0, demonstrations = [], samples = 1 } = settings;
    if (!Object.hasOwn(teachingForms, form)) {
      throw new UsageError(`there is no form "${form}"; there are ${Object.keys(teachingForms).join(", ")}`);
    }
    if (!template.includes(place)) throw new UsageError(`the template has no ${place}, where the prompt is to stand`);
    if (shots > demonstrations.length) {
      throw new UsageError(`${shots} shots, of ${demonstrations.length} demonstrations`);
    }
    if (!(Number.isSafeInteger(samples) && samples > 0)) throw new UsageError(`${samples} samples; expected 1 or more`);
    const added = settings.shots ?? demonstrations.length;
    const most = prompts.reduce((most, { demonstrations: own = [] }) => Math.max(most, own.length + added), 0);
    if (most > maxDemonstrations) {
      throw new UsageError(`${most} demonstrations before a prompt; a record has ${maxDemonstrations} at most`);
    }
    this.#form = teachingForms[form];
    this.#samples = samples;
    this.count = prompts.length * samples;
  }

  question(index: number): TeachingQuestion {
    const { instruction = this.#form.instruction } = this.settings;
    const told = instruction?.replaceAll("{mark}", () => this.#mark);
    const { prompt, demonstrations } = this.#given(index);
    const turns = demonstrations.flatMap((shown) => [
      { role: "user", content: shown.prompt },
      { role: "assistant", content: shown.response },
    ]);
    return {
      text: (told === undefined ? "" : `${told}\n\n`) + givenText(this.#asSeen(index)),
      messages: [
        ...(told === undefined ? [] : [{ role: "system", content: told }]),
        ...turns,
        { role: "user", content: prompt },
      ],
      seed: randomFor(this.settings.seed ?? 0, "teach", index).integer(2 ** 31),
    };
  }

  /** @returns the record, or why there is none */
  record(index: number, { text, finished }: TeachingAnswer): TrainingRecord | { leftOut: string } {
    if (text.trim() === "") return { leftOut: "empty answer" };
    if (this.#form.whole && !finished) return { leftOut: "answer cut at the most tokens" };
    const learnt = this.#form.learnt(text, this.#mark);
    if ("leftOut" in learnt) return learnt;
    const { prompt, demonstrations } = this.#asSeen(index);
    const shown = demonstrations.length > 0 && this.settings.forgetDemonstrations !== true;
    return { prompt, ...(shown && { demonstrations }), ...learnt, ...(!finished && { unfinished: true }) };
  }

  get #mark(): string {
    return this.settings.answerMark ?? "Answer:";
  }

  /** A prompt and what is shown before it, in plain words. */
  #given(index: number): Required<TeachingPrompt> {
    const { demonstrations = [], shots, seed = 0 } = this.settings;
    const { prompt, demonstrations: own = [] } = this.prompts[Math.floor(index / this.#samples)];
    const drawn =
      shots === undefined
        ? demonstrations
        : Array.from(
            permutation(randomFor(seed, "shots", index), demonstrations.length).subarray(0, shots),
            (d) => demonstrations[d],
          );
    const turns = drawn.map(({ prompt, rationale = "", response }) => ({ prompt, response: rationale + response }));
    return { prompt, demonstrations: [...own, ...turns] };
  }

  /** The same as the student sees it. */
  #asSeen(index: number): Required<TeachingPrompt> {
    const { template = this.#form.template } = this.settings;
    const seen = (prompt: string) => template.replaceAll(place, () => prompt);
    const { prompt, demonstrations } = this.#given(index);
    return {
      prompt: seen(prompt),
      demonstrations: demonstrations.map(({ prompt, response }) => ({ prompt: seen(prompt), response })),
    };
  }
}

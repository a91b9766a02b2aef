import type { FinishReason, GenerationEvent, GenerationRequest, TokenLogprob } from "../engine/request.js";
import { ApiError } from "../http/errors.js";
import type { ServedModel } from "../models/servedModel.js";

/** What comes of the choices of a request, as it comes. */
export type ChoiceEvent = GenerationEvent & { readonly choice: number };

/** All of one choice. */
export interface Answer {
  text: string;
  readonly tokens: TokenLogprob[];
  promptLogprobs: readonly TokenLogprob[];
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
  finish: FinishReason | undefined;
}

/**
 * Begins the choices of a request, all or none.
 * @throws QueueFullError, ApiError for a model that generates nothing
 */
export function begin(model: ServedModel, requests: readonly GenerationRequest[]): AsyncIterableIterator<ChoiceEvent> {
  if (model.engine === undefined) {
    throw new ApiError(400, `${model.id} is an encoder and generates nothing; it answers /v1/embeddings`, {
      param: "model",
      code: "unsupported_model",
    });
  }
  return merged(model.engine.submit(requests));
}

/** Events of several choices in the order in which they happen. */
async function* merged(sources: readonly AsyncIterableIterator<GenerationEvent>[]): AsyncGenerator<ChoiceEvent> {
  if (sources.length === 1) {
    for await (const event of sources[0]) yield { ...event, choice: 0 };
    return;
  }
  const next = (choice: number) => sources[choice].next().then((result) => ({ choice, result }));
  const open = new Map(sources.map((_, choice) => [choice, next(choice)]));
  try {
    while (open.size > 0) {
      const { choice, result } = await Promise.race(open.values());
      if (result.done) {
        open.delete(choice);
        continue;
      }
      open.set(choice, next(choice));
      yield { ...result.value, choice };
    }
  } finally {
    // What is still awaited may fail: nobody listens any more.
    for (const waiting of open.values()) waiting.catch(() => {});
    for (const source of sources) await source.return?.();
  }
}

/** Waits for all choices. */
export async function collectAnswers(events: AsyncIterable<ChoiceEvent>, count: number): Promise<Answer[]> {
  const answers = Array.from({ length: count }, newAnswer);
  for await (const event of events) note(answers[event.choice], event);
  return answers;
}

export const newAnswer = (): Answer => ({
  text: "",
  tokens: [],
  promptLogprobs: [],
  promptTokens: 0,
  cachedTokens: 0,
  completionTokens: 0,
  finish: undefined,
});

export function note(answer: Answer, event: GenerationEvent): void {
  if (event.kind === "prompt") {
    answer.promptTokens = event.promptTokens;
    answer.cachedTokens = event.cachedTokens;
    answer.promptLogprobs = event.logprobs ?? [];
  } else {
    answer.completionTokens++;
    answer.text += event.text;
    if (event.logprob) answer.tokens.push(event.logprob);
  }
  answer.finish ??= event.finish;
}

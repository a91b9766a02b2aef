import * as z from "zod/mini";
import type { GenerationRequest } from "../engine/request.js";
import type { ServerEvent } from "../http/events.js";
import type { ServedModel } from "../models/servedModel.js";
import { completionFields, generationOf, mostLogprobs, roomFor, textsOrIds } from "./fields.js";
import { completionLogprobs } from "./logprobs.js";
import { checkBody } from "./parse.js";
import { newId, nowSeconds, type Route, type RouteContext } from "./route.js";
import { begin, type ChoiceEvent, collectAnswers } from "./run.js";
import { Usage } from "./usage.js";

const schema = z.strictObject({
  ...completionFields,
  prompt: textsOrIds(0, { text: 2 ** 24, ids: 2 ** 20 }, "expected a text, a list of token ids, or a list of either"),
  max_tokens: z.nullish(z.int().check(z.gte(0), z.lte(2 ** 24))),
  echo: z.nullish(z.boolean()),
  logprobs: z.nullish(z.int().check(z.gte(0), z.lte(mostLogprobs))),
  best_of: z.nullish(z.literal(1, { error: "expected 1: answers are not ranked" })),
  suffix: z.nullish(z.literal("", { error: "expected none: the model only goes on with a text" })),
});

type Body = z.infer<typeof schema>;

/** The API's own default where nothing is said. */
const defaultTokens = 16;

interface Prompt {
  readonly text: string;
  readonly ids: Uint32Array;
}

/** POST /v1/completions */
export const completions: Route = async (context, raw) => {
  const body = checkBody(schema, raw);
  const model = await context.model(body);
  const prompts = promptsOf(model, body.prompt);
  const perPrompt = body.n ?? 1;
  const requests = prompts.flatMap((prompt) =>
    Array.from({ length: perPrompt }, (_, choice) => requestOf(context, model, body, prompt, choice)),
  );
  const promptOf = (choice: number) => prompts[Math.floor(choice / perPrompt)];
  const events = begin(model, requests);
  const head = { id: newId("cmpl-"), object: "text_completion", created: nowSeconds(), model: model.id };
  if (body.stream) return { events: streamed(events, head, model, body, promptOf, perPrompt) };

  const answers = await collectAnswers(events, requests.length);
  const usage = new Usage();
  const choices = answers.map((answer, index) => {
    const prompt = promptOf(index);
    countPrompt(usage, index, perPrompt, answer);
    usage.completionTokens += answer.completionTokens;
    const tokens = [...(body.echo ? answer.promptLogprobs : []), ...answer.tokens];
    return {
      index,
      text: `${body.echo ? prompt.text : ""}${answer.text}`,
      logprobs:
        body.logprobs == null ? null : completionLogprobs(model.tokens, tokens, body.echo ? 0 : prompt.text.length),
      finish_reason: answer.finish ?? "stop",
    };
  });
  return { body: { ...head, choices, usage: usage.body } };
};

/** The prompt of several choices is counted once. */
function countPrompt(
  usage: Usage,
  choice: number,
  perPrompt: number,
  { promptTokens, cachedTokens }: { promptTokens: number; cachedTokens: number },
): void {
  if (choice % perPrompt !== 0) return;
  usage.promptTokens += promptTokens;
  usage.cachedTokens += cachedTokens;
}

function promptsOf({ tokenizer }: ServedModel, prompt: Body["prompt"]): Prompt[] {
  const ofText = (one: string) => ({ text: one, ids: tokenizer.encode(one) });
  const ofIds = (one: readonly number[]) => ({ text: tokenizer.decode(one), ids: Uint32Array.from(one) });
  if (typeof prompt === "string") return [ofText(prompt)];
  if (typeof prompt[0] === "number") return [ofIds(prompt as number[])];
  return (prompt as (string | number[])[]).map((one) => (typeof one === "string" ? ofText(one) : ofIds(one)));
}

function requestOf(
  { scope }: RouteContext,
  model: ServedModel,
  body: Body,
  prompt: Prompt,
  choice: number,
): GenerationRequest {
  return {
    ...generationOf(model, body, choice),
    prompt: prompt.ids,
    maxTokens: roomFor(model, prompt.ids, body.max_tokens ?? defaultTokens, "prompt"),
    continuesPrompt: true,
    ...(body.logprobs != null && { logprobs: body.logprobs }),
    promptLogprobs: body.echo === true && body.logprobs != null,
    signal: scope.signal,
  };
}

async function* streamed(
  events: AsyncIterable<ChoiceEvent>,
  head: object,
  model: ServedModel,
  body: Body,
  promptOf: (choice: number) => Prompt,
  perPrompt: number,
): AsyncGenerator<ServerEvent> {
  const withUsage = body.stream_options?.include_usage === true;
  const usage = new Usage();
  const offsets = new Map<number, number>();
  const chunk = (index: number, piece: string, logprobs: object | null, finish: string | null): ServerEvent => ({
    data: {
      ...head,
      choices: [{ index, text: piece, logprobs, finish_reason: finish }],
      ...(withUsage && { usage: null }),
    },
  });
  const logprobsOf = (choice: number, tokens: Parameters<typeof completionLogprobs>[1]) => {
    if (body.logprobs == null) return null;
    const offset = offsets.get(choice) ?? (body.echo ? 0 : promptOf(choice).text.length);
    offsets.set(choice, offset + tokens.reduce((sum, { id }) => sum + model.tokens.of(id).text.length, 0));
    return completionLogprobs(model.tokens, tokens, offset);
  };
  for await (const event of events) {
    const { choice, finish = null } = event;
    if (event.kind === "prompt") {
      countPrompt(usage, choice, perPrompt, event);
      if (body.echo) yield chunk(choice, promptOf(choice).text, logprobsOf(choice, event.logprobs ?? []), finish);
      else if (finish !== null) yield chunk(choice, "", null, finish);
      continue;
    }
    usage.completionTokens++;
    const logprobs = logprobsOf(choice, event.logprob ? [event.logprob] : []);
    // A token that made no text certain is nothing to tell of, but for its probability.
    if (event.text !== "" || logprobs !== null || finish !== null) yield chunk(choice, event.text, logprobs, finish);
  }
  if (withUsage) yield { data: { ...head, choices: [], usage: usage.body } };
  yield { data: "[DONE]" };
}

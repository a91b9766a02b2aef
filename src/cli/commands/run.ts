import { Option } from "commander";
import { UsageError } from "../../core/index.js";
import { resolveModel } from "../../io/index.node.js";
import {
  collect,
  type ExitCounts,
  type GenerateOptions,
  generate,
  type SamplingOptions,
  samplingDefaults,
} from "../../runtime/index.js";
import { encodeChat, loadChatTemplate } from "../../text/index.js";
import { chat } from "../chat.js";
import { type CloudOptions, cloudOptions, describeRouting, openCloud, openRoute } from "../cloud.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { type DraftOptions, draftOptions, openDraft } from "../draft.js";
import { digits, terminalText } from "../format.js";
import { integer, number } from "../numbers.js";
import {
  type AdapterOption,
  type AttentionOptions,
  adapterOption,
  attentionOptions,
  type ExitsOption,
  type ExpertRanksOption,
  exitsOption,
  expertRanksOption,
  type MachineOptions,
  machineOptions,
  modelArgument,
  type ResidentOption,
  residentOptions,
  type SparsityOption,
  seedOption,
  sparsityOption,
  type WeightsOption,
  weightsOption,
} from "../options.js";
import { type PromptOptions, promptText } from "../promptText.js";
import { exitsOf, openSession, thresholdsFor } from "../session.js";
import { openTokenizer } from "../tokenizer.js";

interface RunOptions
  extends CommonOptions,
    MachineOptions,
    ExpertRanksOption,
    ResidentOption,
    WeightsOption,
    PromptOptions,
    AttentionOptions,
    SparsityOption,
    ExitsOption,
    AdapterOption,
    DraftOptions,
    CloudOptions {
  chat?: boolean;
  system?: string;
  maxTokens: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  seed?: number;
  stop?: string[];
}

export const command: CommandDefinition<RunOptions> = {
  description:
    "Generates text with a model, sparse if its rarefy.json says so. With --prompt the text is continued as it stands, or put " +
    "into the model's chat template with --chat. Without --prompt it talks: each line you type, or of a piped stdin, is " +
    "answered, through the chat template where the model has one. Where you give no --temperature, --top-k, --top-p, --min-p or " +
    "--repetition-penalty, the model's generation_config.json counts, as in transformers; --temperature 0 is always greedy. Ctrl-C stops an answer, a second one or Ctrl-D ends the talk.",
  arguments: [modelArgument],
  options: [
    new Option("--prompt <text>", "text to continue; - reads it from stdin"),
    new Option("--prompt-file <file>", "file of UTF-8 text to continue"),
    new Option("--chat", "put the prompt into the chat template (default without --prompt)"),
    new Option("--no-chat", "do not use the chat template"),
    new Option("--system <text>", "system message for the chat template"),
    new Option("--max-tokens <n>", "tokens to generate at most").argParser(integer({ min: 1 })).default(256),
    new Option("--temperature <t>", "0 takes the most likely token (default)").argParser(number({ min: 0, max: 100 })),
    new Option("--top-k <n>", "keep the n most likely tokens; 0 keeps all").argParser(integer({ min: 0 })),
    new Option("--top-p <p>", "keep the fewest tokens with this probability together").argParser(
      number({ min: 0, max: 1, aboveMin: true }),
    ),
    new Option("--min-p <p>", "keep tokens at least this fraction as likely as the first").argParser(
      number({ min: 0, max: 1 }),
    ),
    new Option("--repetition-penalty <x>", "make tokens that occurred less likely; 1 is off").argParser(
      number({ min: 0, max: 100, aboveMin: true }),
    ),
    seedOption("the same seed gives the same text (default: a new one each time)"),
    new Option("--stop <text...>", "end before any of these texts"),
    ...attentionOptions(),
    sparsityOption(),
    exitsOption(),
    adapterOption(),
    ...draftOptions(),
    ...cloudOptions(),
    weightsOption(),
    ...residentOptions(),
    expertRanksOption(),
    ...machineOptions(),
  ],
  examples: [
    'rarefy run tiny-6m --prompt "It was a dark night" --max-tokens 64 --temperature 0.8 --seed 1',
    "rarefy run Qwen/Qwen2.5-0.5B-Instruct --weights q8",
    "rarefy run Qwen/Qwen2.5-7B-Instruct --draft Qwen/Qwen2.5-0.5B-Instruct",
    "rarefy run Qwen/Qwen2.5-0.5B-Instruct --cloud http://192.168.1.2:8080/v1",
    "rarefy run Qwen/Qwen2.5-0.5B-Instruct --cloud http://192.168.1.2:8080/v1 --route confidence:budget=0.2 --route-text notes.txt",
  ],
  async run(context, options, [argument]) {
    if (options.system !== undefined && options.chat === false)
      throw new UsageError("--system needs the chat template");
    const prompt = await promptText(context, options);
    if (prompt === undefined && context.json && context.stdin.isTTY)
      throw new UsageError("--json needs --prompt, --prompt-file or lines on stdin");
    const files = await resolveModel(argument, context);
    const tokenizer = await openTokenizer(context, files);
    const template = options.chat === false ? undefined : await loadChatTemplate(files);
    if (options.chat === true && template === undefined) throw new UsageError(`${files.location} has no chat template`);
    const system = options.system === undefined ? [] : [{ role: "system", content: options.system }];
    const encoded = (text: string) =>
      options.chat === true
        ? encodeChat(tokenizer, template!, [...system, { role: "user", content: text }])
        : tokenizer.encode(text);
    // What is wrong with a prompt is said before the weights are read.
    const ids = prompt === undefined ? undefined : encoded(prompt);
    if (ids?.length === 0) throw new UsageError("the prompt is empty: it gives the model no tokens to go on with");

    const defaults = await samplingDefaults(files);
    for (const { file, field, problem } of defaults.warnings) context.warn(`${file}: ${field}: ${problem}`);

    if (options.cloudModel !== undefined && options.cloud === undefined)
      throw new UsageError("--cloud-model is the name of a model on a server; give its address with --cloud");
    const cloud = await openCloud(context, options, tokenizer);
    using session = await openSession(context, files, options);
    const { model, prefill } = session;
    const { attention = session.attention, kv = session.kv } = options;
    const route = await openRoute(context, options, model, tokenizer, { attention, kv });
    using drafting = await openDraft(context, options, tokenizer);
    const { maxTokens, temperature, topK, topP, minP, repetitionPenalty, seed, stop } = options;
    const exits = exitsOf(session, options.exits);
    const given = Object.entries({ temperature, topK, topP, minP, repetitionPenalty }).filter(
      ([, value]) => value !== undefined,
    );
    const sampling: SamplingOptions = { ...defaults.sampling, ...Object.fromEntries(given) };
    const taken = Object.entries(defaults.sampling).filter(([name]) => !given.some(([own]) => own === name));
    if (taken.length > 0)
      context.note(`from generation_config.json: ${taken.map(([name, value]) => `${name} ${value}`).join(", ")}`);
    const continuesPrompt = options.chat !== true;
    const generation: GenerateOptions = {
      ...sampling,
      seed,
      maxTokens,
      stopStrings: stop,
      tokenizer,
      continuesPrompt,
      thresholds: thresholdsFor(session, options),
      prefill,
      attention,
      kv,
      exits,
      draft: drafting.draft,
      draftTokens: options.draftTokens,
      cloud,
      route,
    };
    if (ids === undefined) {
      const turns = await chat(context, { model, tokenizer, template, system: options.system, generation });
      return { model: session.location, weights: model.weights, turns };
    }
    const steps = generate(model, ids, { ...generation, signal: context.signal, onProgress: context.onProgress });
    const summary = await collect(printed(steps, (text) => context.print(terminalText(text))));
    context.print("\n");
    const { tokenIds, text, reason, timings, speculation, routing } = summary;
    context.note(
      `${tokenIds.length} tokens, ${digits(timings.decodeTokensPerSecond ?? Number.NaN, 3)} per second; ` +
        `prompt of ${timings.promptTokens} at ${digits(timings.prefillTokensPerSecond, 3)}`,
    );
    if (speculation !== undefined) {
      const { draft, rounds, drafted, accepted } = speculation;
      context.note(`${draft} proposed ${drafted} tokens, ${accepted} were accepted; ${rounds} passes of the model`);
    }
    if (routing !== undefined) context.note(describeRouting(routing));
    if (summary.exits !== undefined) context.note(describeExits(summary.exits, model.config.layers));
    return {
      model: session.location,
      weights: model.weights,
      ...(cloud && { cloud: { url: cloud.url, model: cloud.model } }),
      ...(options.sparsity && { sparsity: options.sparsity.text }),
      ...(exits && { exits: { rule: exits.text, ...summary.exits } }),
      ...(attention && { attention: attention.text }),
      ...(kv && { kv: kv.text }),
      prompt,
      text,
      tokenIds,
      finishReason: reason,
      sampling,
      seed: summary.seed,
      timings,
      ...(speculation && { speculation }),
      ...(routing && { routing }),
    };
  },
};

function describeExits({ tokens, exitLayers, layersRun, probes }: ExitCounts, layers: number): string {
  const byToken = (count: number) => digits(count / tokens, 3);
  return (
    `tokens left behind layer ${byToken(exitLayers)} of ${layers} on average; by token ${byToken(layersRun)} layers were run ` +
    `and the head was asked ${byToken(probes)} times`
  );
}

/** Passes steps on as they come and shows their text. */
async function* printed<Step extends { text: string }>(steps: AsyncIterable<Step>, show: (text: string) => void) {
  for await (const step of steps) {
    if (step.text !== "") show(step.text);
    yield step;
  }
}

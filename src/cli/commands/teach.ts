import { Option } from "commander";
import { UsageError } from "../../core/index.js";
import type { LocalModelFiles } from "../../io/index.js";
import { resolveModel } from "../../io/index.node.js";
import { openModelTeacher, type TaughtFile, teachToFile } from "../../jobs/index.js";
import {
  cutPrompts,
  endpointTeacher,
  parsePrompts,
  parseRecords,
  type RecordTeacher,
  type TeachingFormId,
  type TeachingPrompt,
  teachingForms,
} from "../../train/index.js";
import { readTrainingText } from "../../train/index.node.js";
import type { CommandDefinition, CommonOptions, Context } from "../command.js";
import { facts, printable } from "../format.js";
import { integer, number } from "../numbers.js";
import {
  type MachineOptions,
  machineOptions,
  modelArgument,
  seedOption,
  type WeightsOption,
  weightsOption,
} from "../options.js";
import { openTokenizer } from "../tokenizer.js";

interface TeachOptions extends CommonOptions, MachineOptions, WeightsOption {
  prompts?: string;
  text?: string;
  promptTokens: number;
  every?: number;
  limit?: number;
  endpoint?: string;
  model?: string;
  apiKeyEnv?: string;
  concurrency?: number;
  timeout: number;
  form: TeachingFormId;
  instruction?: string;
  template?: string;
  answerMark: string;
  demonstrations?: string;
  shots?: number;
  forgetDemonstrations?: boolean;
  chat?: boolean;
  samples: number;
  maxTokens: number;
  temperature: number;
  topP?: number;
  stop?: string[];
  seed: number;
  output: string;
  force?: boolean;
}

const forms = Object.entries(teachingForms).map(([id, { what }]) => `${id}: ${what}`);

export const command: CommandDefinition<TeachOptions> = {
  description:
    "Has a teacher answer prompts, and writes the records of prompt and response that train and finetune learn from: distillation by " +
    "text, for a student with any tokenizer. The teacher is a local model, or any server with OpenAI's API (--endpoint). Answers are kept " +
    "in OUT.run as they come; killed or stopped, the same command asks only what is missing.",
  arguments: [["[MODEL]", `the teacher, where it is none of an endpoint: ${modelArgument[1]}`]],
  options: [
    new Option("--prompts <file>", 'JSON lines, {"prompt": "…"} each; records serve too and are answered anew'),
    new Option(
      "--text <file>",
      "in place of prompts: UTF-8 text, .txt or .xz, of which the teacher continues beginnings",
    ),
    new Option("-o, --output <file>", "records to write, a name in .jsonl").makeOptionMandatory(),
    new Option("--prompt-tokens <n>", "with --text: tokens of a beginning").argParser(integer({ min: 1 })).default(32),
    new Option(
      "--every <n>",
      "with --text: tokens from one beginning to the next (default: beginning and answer)",
    ).argParser(integer({ min: 1 })),
    new Option("--limit <n>", "prompts at most, from the first").argParser(integer({ min: 1 })),
    new Option("--endpoint <url>", "address of the teacher's API, as http://127.0.0.1:8080/v1"),
    new Option("--model <name>", "with --endpoint: which of its models"),
    new Option(
      "--api-key-env <name>",
      "with --endpoint: environment variable that holds the key; the key is sent there and appears nowhere else",
    ),
    new Option(
      "--concurrency <n>",
      "questions under way at once (default: 4 at an endpoint, 1 of a local model)",
    ).argParser(integer({ min: 1, max: 256 })),
    new Option("--timeout <seconds>", "with --endpoint: how long one answer may take")
      .argParser(number({ min: 1, max: 86_400 }))
      .default(600),
    new Option("--form <form>", `what the student is to learn. ${forms.join("; ")}`)
      .choices(Object.keys(teachingForms))
      .default("completion"),
    new Option("--instruction <text>", "what the teacher is told and the student is not (default: as the form says)"),
    new Option(
      "--template <text>",
      "how the student sees a prompt, which stands for {prompt} (default: as the form says)",
    ),
    new Option("--answer-mark <text>", "in a chain of thought, what the answer proper begins with").default("Answer:"),
    new Option("--demonstrations <file>", "records that are shown before every prompt (in-context)"),
    new Option("--shots <n>", "how many of them, drawn for each prompt (default: all)").argParser(integer({ min: 0 })),
    new Option("--forget-demonstrations", "the student learns without what the teacher was shown"),
    new Option("--chat", "ask in a chat (default of instruction and chain-of-thought)"),
    new Option("--no-chat", "ask to go on with a text (default of completion)"),
    new Option("--samples <n>", "answers to each prompt; more than one need a temperature")
      .argParser(integer({ min: 1, max: 1000 }))
      .default(1),
    new Option("--max-tokens <n>", "tokens of an answer at most").argParser(integer({ min: 1 })).default(256),
    new Option("--temperature <t>", "0 takes the most likely token").argParser(number({ min: 0, max: 100 })).default(0),
    new Option("--top-p <p>", "keep the fewest tokens with this probability together").argParser(
      number({ min: 0, max: 1, aboveMin: true }),
    ),
    new Option("--stop <text...>", "end before any of these texts"),
    seedOption("decides what is drawn: answers and demonstrations").default(0),
    weightsOption(),
    ...machineOptions(),
    new Option("--force", "replace a file of that name"),
  ],
  examples: [
    "rarefy teach tiny-6m --text tiny-6m:eval --limit 100 --max-tokens 64 -o taught.jsonl",
    "rarefy teach --endpoint http://127.0.0.1:8080/v1 --model tiny-6m --prompts prompts.jsonl --form chain-of-thought -o taught.jsonl",
  ],
  async run(context, options, [argument]) {
    const { output, demonstrations, samples, temperature, force } = options;
    checkTogether(options, argument);
    const { signal, onProgress } = context;
    const files = argument === undefined ? undefined : await resolveModel(argument, context);
    const prompts = await promptsOf(context, options, files);
    const shown = demonstrations && parseRecords(await readTrainingText(demonstrations, signal), demonstrations);
    if (samples > 1 && temperature === 0) throw new UsageError("--samples above 1 need a --temperature above 0");
    using teacher = await openTeacher(context, options, files);
    const { form, instruction, template, answerMark, shots, forgetDemonstrations, seed } = options;
    const result = await teachToFile(teacher, prompts, output, {
      ...{ form, instruction, template, answerMark, shots, forgetDemonstrations, samples, seed },
      ...(shown && { demonstrations: shown }),
      concurrency: options.concurrency ?? (files === undefined ? 4 : 1),
      ...{ force, signal, onProgress },
      onResume: (answers) => context.note(`Going on with ${answers} answers that are there`),
    });
    context.print(`${inWords(result)}\n`);
    return result;
  },
};

/** @throws UsageError for options of which one leaves another without a sense */
function checkTogether(options: TeachOptions, argument: string | undefined): void {
  const { endpoint, model, apiKeyEnv, prompts, text } = options;
  if ((endpoint === undefined) === (argument === undefined))
    throw new UsageError("give MODEL or --endpoint, one of them");
  if ((prompts === undefined) === (text === undefined)) throw new UsageError("give --prompts or --text, one of them");
  if (endpoint === undefined && (model ?? apiKeyEnv) !== undefined) {
    throw new UsageError("--model and --api-key-env are for an --endpoint");
  }
  if (endpoint !== undefined && model === undefined)
    throw new UsageError("--endpoint needs --model, the name of one of its models");
  if (endpoint !== undefined && text !== undefined) {
    throw new UsageError("--text is cut with the tokenizer of a local teacher; give an endpoint --prompts");
  }
}

async function promptsOf(
  context: Context,
  { prompts, text, promptTokens, every, maxTokens, limit }: TeachOptions,
  files: LocalModelFiles | undefined,
): Promise<readonly TeachingPrompt[]> {
  const path = (prompts ?? text)!;
  const content = await readTrainingText(path, context.signal);
  if (prompts !== undefined) return parsePrompts(content, prompts).slice(0, limit);
  const tokenizer = await openTokenizer(context, files!);
  const { signal, onProgress } = context;
  const cut = { promptTokens, every: every ?? promptTokens + maxTokens, most: limit, signal, onProgress };
  return cutPrompts(tokenizer, content, cut);
}

async function openTeacher(
  { signal, onProgress }: Context,
  options: TeachOptions,
  files: LocalModelFiles | undefined,
): Promise<RecordTeacher & Disposable> {
  const { endpoint, model, form, chat, maxTokens, temperature, topP, stop, timeout } = options;
  const preset = teachingForms[form].chat;
  if (files !== undefined) {
    const { weights, device, threads, structure } = options;
    return openModelTeacher(files, {
      chat: chat ?? (preset ? "preferred" : false),
      sampling: { temperature, ...(topP !== undefined && { topP }) },
      ...{ maxTokens, weights, device, threads, structure, signal, onProgress },
      ...(stop && { stopStrings: stop }),
    });
  }
  const teacher = endpointTeacher({
    ...{ url: endpoint!, model: model!, apiKey: keyFrom(options.apiKeyEnv), chat: chat ?? preset },
    ...{ maxTokens, temperature, topP, stop, timeoutMs: timeout * 1000 },
  });
  return { ...teacher, [Symbol.dispose]: () => {} };
}

/** @throws UsageError that names the variable alone */
function keyFrom(variable: string | undefined): string | undefined {
  if (variable === undefined) return undefined;
  const key = process.env[variable];
  if (!key) throw new UsageError(`the environment has no ${variable}, which --api-key-env names`);
  return key;
}

function inWords({ teacher, questions, records, unfinished, leftOut, output }: TaughtFile): string {
  return facts([
    ["teacher", printable(teacher)],
    ["records", `${records} of ${questions} questions, ${unfinished} of them cut at the most tokens`],
    ...Object.entries(leftOut).map(([reason, count]) => ["left out", `${count}: ${reason}`] as const),
    ["wrote", output],
  ]);
}

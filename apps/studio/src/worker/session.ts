import type { ActivationSparsity, ModelFiles } from "rarefy/io";
import type { PassThresholds } from "rarefy/model";
import { calibrateActivationSparsity, type OpenedModel, openModel, toThresholds } from "rarefy/pipeline";
import { samplingDefaults } from "rarefy/runtime";
import { type ChatTemplate, loadChatTemplate, loadTokenizer, type Tokenizer, tokenizeText } from "rarefy/text";
import { type OpenedModel as Description, type OpenRequest, type Skipping, shares } from "../protocol.js";
import type { CallContext } from "../rpc.js";
import { job, readText } from "./job.js";
import { Speaker } from "./speaker.js";

/** Text that thresholds are found on: enough for a demonstration, and soon read. */
const calibration = { window: 128, calibrationWindows: 4, characters: 6000 };

/** An opened model, and who writes with it. */
export class Session implements Disposable {
  /** Thresholds found here, one record for each of `shares`. */
  #records: Promise<ActivationSparsity[]> | undefined;
  /** By place; each remembers a text. */
  readonly #speakers = new Map<number, Speaker>();

  private constructor(
    readonly request: OpenRequest,
    readonly opened: OpenedModel,
    readonly tokenizer: Tokenizer,
    readonly template: ChatTemplate | undefined,
    readonly description: Description,
  ) {}

  static async open(files: ModelFiles, request: OpenRequest, context: CallContext): Promise<Session> {
    // First, so that a tokenizer that cannot be read leaves no model open.
    const tokenizer = await loadTokenizer(files);
    const template = await loadChatTemplate(files);
    const { sampling } = await samplingDefaults(files);
    const { location, device, weights } = request;
    const opened = await openModel(files, { device, weights, ...job(context) });
    const { model, artifact } = opened;
    return new Session(request, opened, tokenizer, template, {
      location,
      backend: model.backend.info.description,
      weights: model.weights,
      layers: model.config.layers,
      maxPositions: model.config.maxPositions,
      bytesPerToken: model.weightBytes.perToken,
      ownShare: artifact?.activationSparsity?.sparsity,
      chats: template !== undefined,
      endsTurns: template !== undefined && endsTurns(template, tokenizer, model.config.eosTokenIds),
      sampling,
    });
  }

  /** Whether it is what is asked for. */
  is({ location, device, weights }: OpenRequest): boolean {
    const { request } = this;
    return request.location === location && request.device === device && request.weights === weights;
  }

  /** The one who writes at this place among the variants; it remembers the text. */
  async speaker(place: number, skipping: Skipping, context: CallContext): Promise<Speaker> {
    const thresholds = await this.thresholds(skipping, context);
    const found = this.#speakers.get(place);
    if (found?.skipping === skipping) return found;
    found?.[Symbol.dispose]();
    const speaker = new Speaker(this, skipping, thresholds);
    this.#speakers.set(place, speaker);
    return speaker;
  }

  /** Those of rarefy.json, or found on a text that comes with rarefy. */
  async thresholds(skipping: Skipping, context: CallContext): Promise<PassThresholds> {
    if (skipping === "dense") return "dense";
    const own = this.opened.artifact?.activationSparsity;
    if (skipping === "own") return own === undefined ? "exact" : toThresholds(own);
    this.#records ??= this.#calibrated(context);
    try {
      return toThresholds((await this.#records)[shares.indexOf(skipping)]);
    } catch (error) {
      this.#records = undefined;
      throw error;
    }
  }

  async #calibrated(context: CallContext): Promise<ActivationSparsity[]> {
    const { characters, ...windows } = calibration;
    const url = new URL("text/calib.txt", this.request.base).href;
    const { text, name } = await readText({ url }, context.signal);
    const tokens = await tokenizeText(this.tokenizer, text.slice(0, characters), { name });
    const options = { sparsities: shares, ...windows, ...job(context) };
    return (await calibrateActivationSparsity(this.opened.model, tokens, options)).records;
  }

  [Symbol.dispose](): void {
    for (const speaker of this.#speakers.values()) speaker[Symbol.dispose]();
    this.opened[Symbol.dispose]();
  }
}

/**
 * Whether a model stops where its template ends a turn. Base models often come with the template of their tokenizer, and never
 * learnt to.
 */
function endsTurns(template: ChatTemplate, tokenizer: Tokenizer, eosTokenIds: readonly number[]): boolean {
  const answer = "fine";
  const messages = [
    { role: "user", content: "hello" },
    { role: "assistant", content: answer },
  ];
  try {
    const text = template.render(messages, { addGenerationPrompt: false });
    const end = text.slice(text.lastIndexOf(answer) + answer.length);
    const [first] = tokenizer.encode(end.trimStart(), { addSpecialTokens: false });
    return first !== undefined && eosTokenIds.includes(first);
  } catch {
    // A template that refuses this chat says so when it is used.
    return false;
  }
}

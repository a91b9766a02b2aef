import type { SamplingOptions } from "rarefy/runtime";
import type { ChatMessage } from "rarefy/text";
import type { ChatRequest, OpenedModel, OpenRequest, Variant } from "../protocol.js";
import { models } from "../workers.js";
import { HeatMap } from "./heatMap.js";
import { element } from "./page.js";
import { Task } from "./task.js";
import { VariantColumn } from "./variant.js";
import { verdict } from "./verdict.js";

const mostVariants = 4;
const field = (id: string) => element<HTMLInputElement>(id);

/** One prompt, answered by several variants side by side. */
export class Chat {
  readonly #task = new Task(element("chat"), element("chat-task"));
  readonly #map = new HeatMap(element("map"));
  /** Counts what begins a conversation anew: an answer to an older one is dropped. */
  #round = 0;
  readonly #columns: VariantColumn[] = [];
  #locations: readonly string[] = [];

  /** @param request how a model is opened now @param onVariants told when what is compared has changed */
  constructor(
    readonly request: (location: string) => OpenRequest,
    readonly onVariants: (variants: readonly Variant[], opened: readonly OpenedModel[]) => void,
  ) {
    element("generate-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#generate();
    });
    element("stop").addEventListener("click", () => this.#task.cancel());
    element("new-chat").addEventListener("click", () => this.#newChat());
    element("add-variant").addEventListener("click", () => {
      const { location, skipping } = this.#columns[this.#columns.length - 1].variant;
      void this.#open(this.#column({ location, skipping }));
    });
    element("as-chat").addEventListener("change", () => this.#newChat());
  }

  recolour(): void {
    this.#map.recolour();
  }

  /** The models to choose from. */
  offer(locations: readonly string[]): void {
    this.#locations = locations;
    for (const column of this.#columns) column.offer(locations);
  }

  /** Compares a model that was opened with itself: dense, and as sparse as its rarefy.json says or by half. */
  async begin(opened: OpenedModel): Promise<void> {
    const { location, ownShare, sampling } = opened;
    field("as-chat").checked = opened.endsTurns;
    field("temperature").value = String(sampling.temperature ?? 0);
    const { topK, topP, minP, repetitionPenalty } = sampling;
    for (const [id, value] of Object.entries({
      "top-k": topK,
      "top-p": topP,
      "min-p": minP,
      "repetition-penalty": repetitionPenalty,
    }))
      field(id).value = value === undefined ? "" : String(value);
    await this.compare([
      { location, skipping: "dense" },
      { location, skipping: ownShare === undefined ? 0.5 : "own" },
    ]);
  }

  async compare(variants: readonly Variant[]): Promise<void> {
    this.#round++;
    this.#task.cancel();
    for (const column of this.#columns.splice(0)) column.article.remove();
    const added = variants.map((variant) => this.#column({ ...variant }));
    this.#changed();
    for (const column of added) {
      // Another comparison has begun meanwhile.
      if (!this.#columns.includes(column)) return;
      await this.#open(column);
    }
  }

  /** A model is gone. */
  async drop(location: string): Promise<void> {
    const others = this.#columns.map(({ variant }) => variant).filter((variant) => variant.location !== location);
    if (others.length < this.#columns.length) await this.compare(others);
  }

  /** Opens all models anew, as `request` has it now. */
  async reopen(): Promise<void> {
    await this.compare(this.#columns.map(({ variant }) => variant));
  }

  #column(variant: Variant): VariantColumn {
    const column: VariantColumn = new VariantColumn(variant, {
      onChange: () => void this.#open(column),
      onRemove: () => {
        this.#columns.splice(this.#columns.indexOf(column), 1);
        column.article.remove();
        this.#changed();
      },
    });
    this.#columns.push(column);
    element("variants").append(column.article);
    column.offer(this.#locations);
    return column;
  }

  async #open(column: VariantColumn): Promise<void> {
    column.clear();
    this.#changed();
    const { location } = column.variant;
    const opened = await this.#task.run((options) => models.call("open", this.request(location), options));
    if (opened !== undefined && this.#columns.includes(column)) column.show(opened);
    this.#changed();
  }

  #changed(): void {
    const columns = this.#columns;
    for (const [at, column] of columns.entries()) column.place(at, columns.length);
    const ready = columns.length > 0 && columns.every(({ opened, variant }) => opened?.location === variant.location);
    field("generate").disabled = !ready;
    field("add-variant").disabled = !ready || columns.length >= mostVariants;
    const chats = columns.filter(({ opened }) => opened?.chats);
    element("as-chat-row").hidden = chats.length === 0;
    const asChat = chats.length > 0 && field("as-chat").checked;
    element("system-row").hidden = !asChat;
    element("new-chat").hidden = !asChat;
    element("prompt-label").textContent = asChat ? "Message" : "Text to continue";
    element("template-note").textContent = ready ? templateNote(columns, asChat) : "";
    const variants = columns.map(({ variant }) => variant);
    void models.call("keep", [...new Set(variants.map(({ location }) => location))]);
    const opened = columns.flatMap((column) => column.opened ?? []);
    this.onVariants(variants, [...new Map(opened.map((model) => [model.location, model])).values()]);
  }

  #newChat(): void {
    this.#round++;
    this.#task.cancel();
    for (const column of this.#columns) column.clear();
    element("verdict").textContent = "";
    this.#changed();
  }

  async #generate(): Promise<void> {
    const round = ++this.#round;
    const columns = [...this.#columns];
    const text = field("prompt").value;
    const asked = columns.map((column) => this.#messages(column, text));
    const request: ChatRequest = {
      variants: columns.map(({ variant }, at) => ({ ...variant, prompt: asked[at] ?? text })),
      maxTokens: field("max-tokens").valueAsNumber,
      sampling: sampling(),
    };
    for (const [at, column] of columns.entries()) column.ask(text, asked[at] !== undefined);
    element("verdict").textContent = "";
    this.#writing(true);
    const answers = await this.#task.run(({ onEvent, signal }) =>
      models.call("chat", request, {
        signal,
        onEvent: (event) => {
          onEvent(event);
          if (event.type === "picture") this.#map.show(event);
          if (event.type === "token") columns[event.variant].write(event.id, event.text, event);
        },
      }),
    );
    this.#writing(false);
    if (answers === undefined || round !== this.#round) return;
    // Of the system prompt there is one, as it stands in its field.
    for (const [at, column] of columns.entries())
      column.answered(answers[at], asked[at]?.filter(({ role }) => role !== "system") ?? []);
    element("verdict").textContent = verdict(columns.map(({ letter }, at) => ({ letter, ...answers[at] })));
    if (asked.some((messages) => messages !== undefined)) field("prompt").value = "";
  }

  /** The chat with its next question; undefined where the text is gone on with. */
  #messages({ opened, history }: VariantColumn, content: string): ChatMessage[] | undefined {
    if (!opened?.chats || !field("as-chat").checked) return undefined;
    const system = field("system").value.trim();
    return [...(system === "" ? [] : [{ role: "system", content: system }]), ...history, { role: "user", content }];
  }

  #writing(writing: boolean): void {
    element("stop").hidden = !writing;
    element("generate").hidden = writing;
    field("add-variant").disabled = writing || this.#columns.length >= mostVariants;
    for (const column of this.#columns) column.disabled = writing;
    // The button that was pressed is gone; whoever uses the keyboard goes on from its other half.
    if (document.activeElement === document.body) element(writing ? "stop" : "generate").focus();
  }
}

function sampling(): SamplingOptions {
  const number = (id: string) => (field(id).value === "" ? undefined : field(id).valueAsNumber);
  return {
    temperature: number("temperature"),
    topK: number("top-k"),
    topP: number("top-p"),
    minP: number("min-p"),
    repetitionPenalty: number("repetition-penalty"),
    seed: number("seed"),
  };
}

/** What becomes of the text, by what the models have. */
function templateNote(columns: readonly VariantColumn[], asChat: boolean): string {
  const chats = columns.filter(({ opened }) => opened!.chats);
  if (chats.length === 0) return "The model has no chat template: it is a base model, which goes on with your text.";
  if (asChat) {
    const others = chats.length < columns.length ? " Variants without one go on with the text as it is." : "";
    return `Answered through the model's own chat template.${others}`;
  }
  return chats.some(({ opened }) => opened!.endsTurns)
    ? "The models go on with the text as it is."
    : "The model has a chat template and does not stop where it ends a turn: it seems to be a base model, which goes on with your text.";
}

import type { ChatMessage } from "rarefy/text";
import { type Answer, type Counts, type OpenedModel, type Skipping, shares, type Variant } from "../protocol.js";
import { shortName } from "../shortName.js";
import { button, made, megabytes, percent } from "./page.js";

/** What a column tells the chat. */
export interface VariantListeners {
  onChange(column: VariantColumn): void;
  onRemove(column: VariantColumn): void;
}

/** One of the variants that answer side by side: which model skips how much, how fast it is, and what it wrote. */
export class VariantColumn {
  readonly article: HTMLElement;
  /** The chat so far. */
  history: ChatMessage[] = [];
  readonly #model = made("select");
  readonly #skipping = made("select");
  readonly #title = made("h3");
  readonly #remove: HTMLButtonElement;
  readonly #speed = made("output", { className: "tokens-per-second", textContent: "–" });
  readonly #counts = made("p", { className: "small counts", textContent: "\u00a0" });
  readonly #log = made("div", { className: "text log", role: "log", tabIndex: 0 });
  #opened: OpenedModel | undefined;
  #answer: HTMLElement = made("p");

  constructor(
    readonly variant: Variant,
    listeners: VariantListeners,
  ) {
    this.#remove = button("Remove", () => listeners.onRemove(this), { className: "quiet" });
    this.#model.addEventListener("change", () => {
      variant.location = this.#model.value;
      listeners.onChange(this);
    });
    this.#skipping.addEventListener("change", () => {
      variant.skipping = skippingOf(this.#skipping.value);
      listeners.onChange(this);
    });
    const speed = made("p", { className: "speed" }, this.#speed, made("span", { textContent: " tokens/s" }));
    this.article = made(
      "article",
      {},
      made("div", { className: "row head" }, this.#title, this.#remove),
      made(
        "div",
        { className: "row" },
        made("label", { textContent: "Model " }, this.#model),
        made("label", { textContent: "Inputs skipped " }, this.#skipping),
      ),
      speed,
      this.#counts,
      this.#log,
    );
  }

  /** A, B … by its place; the last one that is left stays. */
  place(at: number, count: number): void {
    const letter = String.fromCharCode(65 + at);
    this.#title.textContent = letter;
    this.#remove.hidden = count < 2;
    this.#remove.ariaLabel = `Remove variant ${letter}`;
    this.#model.ariaLabel = `Model of ${letter}`;
    this.#skipping.ariaLabel = `Inputs skipped by ${letter}`;
    this.#log.ariaLabel = `What ${letter} writes`;
    this.article.ariaLabel = `Variant ${letter}`;
    this.article.dataset.variant = String(at);
  }

  get letter(): string {
    return this.#title.textContent!;
  }

  get opened(): OpenedModel | undefined {
    return this.#opened;
  }

  /** Which models there are to choose from. */
  offer(locations: readonly string[]): void {
    const { location } = this.variant;
    this.#model.replaceChildren(...locations.map((at) => new Option(shortName(at), at, false, at === location)));
  }

  /** The model that was opened for it, and so what it can skip. */
  show(opened: OpenedModel): void {
    this.#opened = opened;
    const { ownShare } = opened;
    if (this.variant.skipping === "own" && ownShare === undefined) this.variant.skipping = "dense";
    const chosen = String(this.variant.skipping);
    const options: [string, string][] = [
      ["dense", "none: dense"],
      ...(ownShare === undefined ? [] : [["own", `${percent(ownShare)} (rarefy.json)`] as [string, string]]),
      ...shares.map((share): [string, string] => [String(share), percent(share)]),
    ];
    this.#skipping.replaceChildren(...options.map(([value, text]) => new Option(text, value, false, value === chosen)));
  }

  set disabled(disabled: boolean) {
    for (const control of [this.#model, this.#skipping, this.#remove]) control.disabled = disabled;
  }

  /** Forgets chat and figures. */
  clear(): void {
    this.history = [];
    this.#log.replaceChildren();
    this.#speed.textContent = "–";
    this.#counts.textContent = "\u00a0";
  }

  /** An answer begins: below the question, or behind the text that it goes on with. */
  ask(prompt: string, asChat: boolean): void {
    this.#speed.textContent = "–";
    this.#counts.textContent = "\u00a0";
    if (asChat) {
      this.#answer = made("p", { className: "answer" });
      this.#log.append(made("p", { className: "question", textContent: prompt }), this.#answer);
      return;
    }
    this.#answer = made("p", { className: "answer" }, made("span", { className: "prompt", textContent: prompt }));
    this.#log.replaceChildren(this.#answer);
  }

  write(id: number, text: string, counts: Counts): void {
    const piece = made("span", { textContent: text });
    piece.dataset.id = String(id);
    this.#answer.append(piece);
    this.#log.scrollTop = this.#log.scrollHeight;
    this.count(counts);
  }

  count({ tokensPerSecond, bytesPerToken, skipped, meanExitLayer }: Counts): void {
    this.#speed.textContent = tokensPerSecond?.toPrecision(3) ?? "–";
    if (bytesPerToken === undefined) return;
    const { bytesPerToken: all, layers } = this.#opened!;
    const left = meanExitLayer === undefined ? "" : `, left after ${meanExitLayer.toFixed(1)} of ${layers} layers`;
    this.#counts.textContent =
      `${megabytes(bytesPerToken)} of weights per token (${percent(bytesPerToken / all)}), ` +
      `${percent(skipped)} of inputs skipped${left}`;
  }

  /** An answer has ended. */
  answered(answer: Answer, asked: readonly ChatMessage[]): void {
    this.count(answer);
    this.history = asked.length === 0 ? [] : [...asked, { role: "assistant", content: answer.text }];
    if (answer.finish === "stopped") this.#answer.append(made("em", { className: "small", textContent: " (stopped)" }));
    if (answer.finish === "capacity")
      this.#answer.append(made("em", { className: "small", textContent: " (no more room in the model's positions)" }));
  }
}

const skippingOf = (value: string): Skipping =>
  value === "dense" || value === "own" ? value : (Number(value) as (typeof shares)[number]);

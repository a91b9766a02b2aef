import type { Inspection, Variant } from "../protocol.js";
import { shortName } from "../shortName.js";
import { models } from "../workers.js";
import { element, made, percent, scrolling } from "./page.js";
import { Task } from "./task.js";

const field = (id: string) => element<HTMLInputElement & HTMLSelectElement>(id);

/** Looks at what a text does inside of a model. */
export class Inspect {
  readonly #task = new Task(element("inspect"), element("inspect-task"));
  #variants: readonly Variant[] = [];

  constructor() {
    element("inspect-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#look();
    });
  }

  /** What is compared in the chat can be looked at here. */
  offer(variants: readonly Variant[]): void {
    this.#variants = variants;
    const chosen = field("inspect-variant").value;
    field("inspect-variant").replaceChildren(
      ...variants.map(({ location, skipping }, at) => {
        const skips = skipping === "dense" ? "dense" : skipping === "own" ? "its own thresholds" : percent(skipping);
        const text = `${String.fromCharCode(65 + at)}: ${shortName(location)}, ${skips}`;
        return new Option(text, String(at), false, String(at) === chosen);
      }),
    );
    field("look").disabled = variants.length === 0;
  }

  async #look(): Promise<void> {
    const variant = this.#variants[Number(field("inspect-variant").value)];
    const text = field("inspect-text").value;
    const found = await this.#task.run((options) => models.call("inspect", { ...variant, text }, options));
    if (found === undefined) return;
    // Charts are loaded when there is something to draw.
    const { figure, heatmap, svgStyle } = await import("rarefy/report");
    const drawn = (options: Parameters<typeof heatmap>[0]) => {
      const holder = scrolling(made("div"), options.title);
      // Made by the kit, which escapes what is put in.
      const picture = heatmap(options);
      holder.innerHTML = figure(picture).text;
      Object.assign(holder.querySelector("svg")!.style, {
        minWidth: `${picture.width}px`,
        maxWidth: `${1.3 * picture.width}px`,
      });
      return holder;
    };
    const { maps, skipped, experts } = found;
    element("inside").replaceChildren(
      made("style", { textContent: svgStyle.text }),
      ...attention(found, drawn),
      drawn({
        title: "Inputs skipped, by layer and projection",
        rows: skipped.map((_, layer) => String(layer)),
        cols: maps,
        value: (row, col) => skipped[row][col],
        max: 1,
        label: percent,
      }),
      ...(experts.length === 0
        ? []
        : [
            drawn({
              title: "Load of the experts, by layer",
              rows: experts.map(({ layer }) => String(layer)),
              cols: experts[0].loads.map((_, expert) => String(expert)),
              value: (row, col) => experts[row].loads[col],
              max: Math.max(...experts.flatMap(({ loads }) => loads)),
              label: (share) => `${(100 * share).toFixed(1)} %`,
            }),
          ]),
    );
  }
}

type Drawn = (options: Parameters<typeof import("rarefy/report").heatmap>[0]) => HTMLElement;

/** How much of a layer's attention goes to the first token, and for a chosen head how much each token is given. */
function attention({ tokens, attention: layers }: Inspection, drawn: Drawn): HTMLElement[] {
  const share = (layer: number, head: number, at: number) => layers[layer].shares[head * tokens.length + at];
  const most = Math.max(...layers.map(({ heads }) => heads));
  const first = drawn({
    title: "Attention to the first token, by layer and key head",
    rows: layers.map((_, layer) => String(layer)),
    cols: Array.from({ length: most }, (_, head) => `head ${head}`),
    value: (row, col) => (col < layers[row].heads ? share(row, col, 0) : undefined),
    max: 1,
    label: percent,
  });
  const layerOf = made("select", {}, ...layers.map((_, layer) => new Option(String(layer))));
  const headOf = made("select");
  const text = made("p", { className: "text attention" });
  const summary = made("p", { className: "small" });
  const show = () => {
    const [layer, head] = [Number(layerOf.value), Number(headOf.value)];
    const shares = tokens.map((_, at) => share(layer, head, at));
    const strongest = Math.max(...shares);
    text.replaceChildren(
      ...tokens.map((token, at) => {
        const mark = made("span", { textContent: token, title: `${(100 * shares[at]).toFixed(1)} %` });
        mark.style.setProperty("--strength", `${Math.round((36 * shares[at]) / strongest)}%`);
        return mark;
      }),
    );
    const ranked = shares.map((given, at) => ({ given, at })).toSorted((a, b) => b.given - a.given);
    const named = ranked
      .slice(0, 3)
      .map(({ given, at }) => `token ${at + 1}, “${tokens[at].trim()}” (${percent(given)})`);
    summary.textContent = `Most of the attention of layer ${layer}, head ${head} goes to ${named.join(", ")}.`;
  };
  const heads = () => {
    const { heads: count } = layers[Number(layerOf.value)];
    headOf.replaceChildren(...Array.from({ length: count }, (_, head) => new Option(String(head))));
    show();
  };
  layerOf.addEventListener("change", heads);
  headOf.addEventListener("change", show);
  heads();
  const controls = made("div", { className: "row" });
  controls.append(
    made("label", { textContent: "Layer " }, layerOf),
    made("label", { textContent: "Key head " }, headOf),
  );
  return [first, made("h3", { textContent: "Attention, token by token" }), controls, summary, text];
}

import { quote } from "../core/index.js";
import { isJsonObject } from "../io/index.js";
import type { Candidate } from "./data.js";
import { type Html, html, palette } from "./figures/index.js";

/** Stages of a recipe; none for what is no recipe. */
function stagesOf({ recipe }: Candidate): Record<string, unknown>[] {
  return (isJsonObject(recipe) && Array.isArray(recipe.stages) ? recipe.stages : []).filter(isJsonObject);
}

const units = new Set(["rows", "columns", "neurons", "heads", "block"]);

/** Candidates made by the same methods share a colour: "sparsegpt + gptq", "wanda neurons". Without a recipe the name tells. */
export function groupOf(candidate: Candidate): string {
  const methods = stagesOf(candidate).map(({ method, type, pattern }) => {
    const kind = isJsonObject(pattern) ? pattern.type : undefined;
    const name = method ?? type;
    const unit = typeof kind === "string" && units.has(kind) ? ` ${kind}` : "";
    return `${typeof name === "string" ? name : quote(name)}${unit}`;
  });
  return methods.length > 0 ? [...new Set(methods)].join(" + ") : candidate.name;
}

/** The share of zeros that a recipe asks for, where it asks for one: what may be joined to a line. */
export function levelOf(candidate: Candidate): number | undefined {
  const levels = stagesOf(candidate).map(({ pattern, keepRatio }) =>
    isJsonObject(pattern) && typeof pattern.sparsity === "number"
      ? pattern.sparsity
      : typeof keepRatio === "number"
        ? 1 - keepRatio
        : undefined,
  );
  return levels.length > 0 && levels.every((level) => level !== undefined) ? Math.max(...levels) : undefined;
}

/** A colour for every group. */
export function colorsOf(candidates: readonly Candidate[]): Map<string, string> {
  const groups = [...new Set(candidates.map(groupOf))];
  return new Map(groups.map((group, i) => [group, palette[i % palette.length]]));
}

export function legend(candidates: readonly Candidate[], colors: ReadonlyMap<string, string>): Html {
  const groups = [...new Set(candidates.map(groupOf))];
  return html`<p class="soft">${groups.map(
    (group) => html`<span class="key"><b style="color:${colors.get(group)!}">●</b> ${group}</span> `,
  )}</p>`;
}

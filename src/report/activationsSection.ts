import type { Candidate } from "./data.js";
import { activationHistogram, figure, type Html, html } from "./figures/index.js";

/** Activations of the first, the middle and the last layer, with the thresholds that they are compared with. */
export function activationsSection({ name, activations, readers, activationSparsity }: Candidate): Html | undefined {
  if (activations === undefined || activations.length === 0) return undefined;
  const chosen = [...new Set([0, Math.floor(activations.length / 2), activations.length - 1])];
  const figures = chosen.flatMap((layer) =>
    Object.entries(activations[layer]).flatMap(([site, found]) => {
      const cuts = activationSparsity?.layers[layer];
      const roles = readers !== undefined && Object.hasOwn(readers, site) ? readers[site] : undefined;
      // What no map reads is the gate.
      const thresholds =
        roles?.length === 0
          ? [{ name: "gate", value: cuts?.gate?.threshold ?? 0 }]
          : (roles ?? []).map((role) => ({ name: role, value: cuts?.maps[role]?.threshold ?? 0 }));
      return [
        figure(
          activationHistogram(
            `layer ${layer}, ${site}`,
            found,
            thresholds.filter(({ value }) => value > 0),
          ),
        ),
      ];
    }),
  );
  return html`<h2>Activations and thresholds: ${name}</h2>
<p class="soft">|x| in front of the matrices, as seen in calibration; what lies left of a line counts as zero. The largest tenth is left off.</p>
<div class="histograms">${figures}</div>`;
}

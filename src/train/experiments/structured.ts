import type { Cell, Experiment, Scale } from "./contract.js";
import { classifierFiles } from "./structured/classifierTexts.js";
import { trainedOnes } from "./structured/contestants.js";
import { decoderFiles } from "./structured/decoderTexts.js";
import { runOneShots, type StructuredResult } from "./structured/oneShot.js";
import { protocols } from "./structured/protocol.js";
import { reportStructured } from "./structured/report.js";
import { openSubject } from "./structured/subject.js";
import { runTrained } from "./structured/trained.js";

export const experiment: Experiment = {
  id: "structured",
  title: "Heads and neurons at equal multiply-adds",
  description:
    "A trained model loses heads and neurons until a share of their multiply-adds stays: by magnitude, by Fisher masks after search, after rearrangement and after tuning, and by training as long with Fisher's masks kept, with L0 gates, with CoFi's coarse and fine gates and at DynaBERT's widths. A model that classifies is measured by its accuracy on subj, any other by its perplexity.",
  seeds: { smoke: 1, laptop: 1, gpu: 3 },
  texts: [...Object.values(classifierFiles), ...Object.values(decoderFiles)],
  usesModel: true,
  plan(scale, seeds, model) {
    const { shares, steps } = protocols[scale];
    const cells: Cell[] = [{ key: "one-shot", seed: 0, settings: { name: "one-shot", model, scale } }];
    for (let seed = 0; seed < seeds; seed++) {
      for (const [name, { together }] of Object.entries(trainedOnes)) {
        for (const share of together === undefined ? shares : [0]) {
          const key = `${name}${share === 0 ? "" : `-${Math.round(100 * share)}`}-seed${seed}`;
          cells.push({ key, seed, settings: { name, share, model, scale, steps } });
        }
      }
    }
    return cells;
  },
  async run({ seed, settings }, options): Promise<StructuredResult> {
    const protocol = protocols[settings.scale as Scale];
    const share = settings.share as number;
    const shares = share > 0 ? [share] : protocol.shares;
    await using subject = await openSubject(options, protocol);
    const { kind, measure, tokens } = subject;
    const points =
      settings.name === "one-shot"
        ? await runOneShots(subject, shares, options)
        : await runTrained(subject, settings.name as string, shares, seed, protocol, options);
    return { kind, measure, tokens, points };
  },
  report: async (cells, scale) => reportStructured(cells, protocols[scale]),
};

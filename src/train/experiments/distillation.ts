import type { Cell, Experiment, Scale } from "./contract.js";
import { languageModels, students } from "./distillationContestants.js";
import { languageTexts, teachLanguageModel } from "./distillationLanguage.js";
import { languageProtocol, studentProtocols } from "./distillationProtocol.js";
import { reportLanguageModels, reportStudents } from "./distillationReport.js";
import { teachStudent } from "./distillationStudents.js";

export const experiment: Experiment = {
  id: "distillation",
  title: "Students of a teacher: texts, predictions, hidden states",
  description:
    "Small Llamas that learn from a larger one at equal tokens: from the texts alone (SFT), from texts that it writes (SeqKD), by forward and reverse KL at every token, by MiniLLM and by hidden states; Rouge-L, perplexity and exposure bias. At the scale of a GPU, the architecture of the embedded model beside a given language model: perplexity against that of the same tokens without a teacher.",
  seeds: { smoke: 1, laptop: 3, gpu: 1 },
  texts: Object.values(languageTexts),
  usesModel: true,
  plan: (scale, seeds, model) =>
    Array.from({ length: seeds }, (_, seed) =>
      ["teacher", ...Object.keys(scale === "gpu" ? languageModels : students)].map(
        (name): Cell => ({ key: `${name}-seed${seed}`, seed, settings: settingsOf(name, scale, model) }),
      ),
    ).flat(),
  run: (cell, options) => {
    const scale = cell.settings.scale as Scale;
    return scale === "gpu"
      ? teachLanguageModel(cell, languageProtocol, options)
      : teachStudent(cell, studentProtocols[scale], options);
  },
  report: async (cells, scale) =>
    scale === "gpu" ? reportLanguageModels(cells, languageProtocol) : reportStudents(cells, studentProtocols[scale]),
};

/** A cell of another length, or of another model where one is read, is another cell. */
const settingsOf = (name: string, scale: Scale, model: string): Cell["settings"] =>
  scale === "gpu"
    ? {
        name,
        scale,
        model,
        protocol: JSON.stringify(languageProtocol),
        how: JSON.stringify(languageModels[name] ?? null),
      }
    : { name, scale, protocol: JSON.stringify(studentProtocols[scale]), how: JSON.stringify(students[name] ?? null) };

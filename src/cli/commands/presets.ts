import { Option } from "commander";
import * as z from "zod/mini";
import {
  lowRankMethods,
  presetRecipe,
  presets,
  pruneMethods,
  quantizeMethods,
  type Recipe,
  scaleMethods,
  type TensorMethod,
  tensorMethods,
} from "../../compress/index.js";
import { trainMethods } from "../../train/index.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { table } from "../format.js";

interface PresetsOptions extends CommonOptions {
  methods?: boolean;
}

interface MethodDocument {
  id: string;
  title: string;
  paper: string;
  /** JSON schema of its options. */
  options: Record<string, unknown>;
}

export const command: CommandDefinition<PresetsOptions> = {
  description:
    "Lists the recipes that --recipe takes by name. With --methods, the methods of every kind of stage with their options, as " +
    "--option name=value sets them, and those of train and finetune, whose options --method-option sets; with --json, the " +
    "recipes in full, to begin one's own with.",
  options: [new Option("--methods", "list the methods and their options instead")],
  examples: ["rarefy presets", "rarefy presets --methods", "rarefy presets --json"],
  async run(context, options) {
    const methods = {
      prune: await methodsOf(pruneMethods),
      quantize: await methodsOf(quantizeMethods),
      scale: await methodsOf(scaleMethods),
      lowRank: await methodsOf(lowRankMethods),
      tensors: await methodsOf(tensorsOf("blocks")),
      embedding: await methodsOf(tensorsOf("embedding")),
      train: await methodsOf(trainMethods),
    };
    const recipes: Record<string, Recipe> = Object.fromEntries(
      Object.keys(presets).map((name) => [name, presetRecipe(name)]),
    );
    if (options.methods === true) {
      const blocks = Object.entries(methods).map(([kind, list]) => `${kind}\n\n${list.map(inWords).join("\n")}`);
      context.print(`${blocks.join("\n")}`);
    } else {
      const rows = Object.entries(recipes).map(([name, recipe]) => ({ name, title: recipe.title ?? "" }));
      const columns = [
        { title: "preset", cell: (row: (typeof rows)[number]) => row.name, align: "left" },
        { title: "what it does", cell: (row: (typeof rows)[number]) => row.title, align: "left" },
      ] as const;
      context.print(`${table(columns, rows)}\n`);
    }
    return { presets: recipes, methods };
  },
};

interface Described extends Omit<MethodDocument, "options"> {
  options: unknown;
}
type Table = Readonly<Record<string, () => Promise<{ method: Described }>>>;

/** Methods of factors by what they are for; some are for both. */
const tensorsOf = (what: TensorMethod["of"][number]): Table =>
  Object.fromEntries(
    Object.entries(tensorMethods)
      .filter(([, method]) => method.of.includes(what))
      .map(([id, method]) => [id, async () => ({ method })]),
  );

async function methodsOf(methods: Table): Promise<MethodDocument[]> {
  return Promise.all(
    Object.values(methods).map(async (load) => {
      const { id, title, paper, options } = (await load()).method;
      const { properties = {} } = z.toJSONSchema(options as z.core.$ZodType, { io: "input" }) as {
        properties?: Record<string, unknown>;
      };
      return { id, title, paper, options: properties };
    }),
  );
}

function inWords({ id, title, paper, options }: MethodDocument): string {
  const lines = Object.entries(options).map(([name, schema]) => {
    const { description, default: preset, enum: choices } = schema as Record<string, unknown>;
    const values = Array.isArray(choices) ? ` (${choices.join(", ")})` : "";
    const standard = preset === undefined ? "" : ` [${JSON.stringify(preset)}]`;
    return `    ${name}${values}${standard}  ${String(description ?? "")}\n`;
  });
  return `  ${id}: ${title} (${paper})\n${lines.join("")}`;
}

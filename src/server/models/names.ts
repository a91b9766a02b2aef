import type { ModelEntry } from "./servedModel.js";

/** A model as requests call it: one of the entries, and maybe one of its adapters. */
export interface NamedModel {
  readonly entry: ModelEntry;
  readonly adapter?: string;
}

/** What a model with one of its adapters is called. */
export const adaptedName = (id: string, adapter: string): string => `${id}:${adapter}`;

/** All that requests can name, by name: each model, and each model with each of its adapters. */
export function namesOf(entries: readonly ModelEntry[]): [name: string, NamedModel][] {
  return entries.flatMap((entry) => [
    [entry.id, { entry }] as [string, NamedModel],
    ...(entry.adapters ?? []).map(({ name }): [string, NamedModel] => [
      adaptedName(entry.id, name),
      { entry, adapter: name },
    ]),
  ]);
}

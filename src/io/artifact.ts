import { FormatError, quote } from "../core/index.js";
import { checkSchema } from "../core/internal.js";
import { type Artifact, artifactSchema, artifactVersion } from "./artifactSchema.js";
import { artifactOfVersion1 } from "./artifactVersion1.js";
import type { ModelFiles } from "./byteSource.js";
import { isJsonObject, jsonBytes, readJsonFile } from "./json.js";

/** What lies beside the weights of a model that rarefy made: how it was made and how to run it. */
export const artifactFileName = "rarefy.json";

/** Reads `rarefy.json` of a model. @returns undefined when there is none. @throws FormatError */
export async function readArtifact(model: { files: ModelFiles; location: string }): Promise<Artifact | undefined> {
  const raw = await readJsonFile(model.files, artifactFileName);
  return raw === undefined ? undefined : parseArtifact(raw, `${model.location}/${artifactFileName}`);
}

/** Also reads what earlier versions wrote. @throws FormatError */
export function parseArtifact(raw: unknown, file: string): Artifact {
  const found = isJsonObject(raw) ? raw.rarefy : artifactVersion;
  if (found === 1) return artifactOfVersion1(raw, file);
  if (found !== artifactVersion) {
    throw new FormatError({
      file,
      field: "rarefy",
      problem: `version ${quote(found)}`,
      expected: `version ${artifactVersion} or 1`,
      hint: "It was written by another version of rarefy; update rarefy or make the model again",
    });
  }
  return checkSchema(artifactSchema, raw, file);
}

/** The bytes of `rarefy.json`. @throws FormatError when the record could not be read back. */
export function serializeArtifact(artifact: Artifact): Uint8Array {
  // Checking puts the fields in one order, whoever put them together: equal artifacts are equal files.
  const ordered = checkSchema(artifactSchema, artifact, artifactFileName);
  return jsonBytes(ordered);
}

/**
 * Whether the thresholds fit the model.
 * @param roles of the linear maps of every block
 * @throws FormatError
 */
export function checkArtifactMaps(artifact: Artifact, roles: readonly ReadonlySet<string>[], file: string): void {
  const layers = artifact.activationSparsity?.layers;
  if (layers === undefined) return;
  const hint = "The file belongs to another model; calibrate again";
  if (layers.length !== roles.length) {
    throw new FormatError({
      file,
      field: "activationSparsity.layers",
      problem: `${layers.length} layers`,
      expected: `${roles.length}, as config.json has`,
      hint,
    });
  }
  for (const [l, { maps }] of layers.entries()) {
    const unknown = Object.keys(maps).find((role) => !roles[l].has(role));
    if (unknown === undefined) continue;
    throw new FormatError({
      file,
      field: `activationSparsity.layers.${l}.maps`,
      problem: `there is no ${quote(unknown)}`,
      expected: [...roles[l]].join(", "),
      hint,
    });
  }
}

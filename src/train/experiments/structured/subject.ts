import type { ModelConfig } from "../../../arch/index.js";
import type { JobOptions } from "../../../core/index.js";
import { type Checkpoint, openCheckpoint } from "../../../io/index.js";
import { openBackend } from "../../../kernels/index.js";
import { describeDecoder, loadModel } from "../../../model/index.js";
import { type ModelParameter, modelParameters } from "../../models/parameters.js";
import type { CellOptions } from "../contract.js";
import { classifierTexts } from "./classifierTexts.js";
import { decoderTexts } from "./decoderTexts.js";
import type { StructuredProtocol, SubjectProtocol } from "./protocol.js";
import type { SubjectTexts } from "./texts.js";

/** The model that an experiment makes smaller, with its texts. */
export interface Subject extends SubjectTexts, AsyncDisposable {
  kind: "classifier" | "decoder";
  protocol: SubjectProtocol;
  checkpoint: Checkpoint;
  config: ModelConfig;
  parameters: readonly ModelParameter[];
}

/** Opens the caller's model: a classifier reads labelled texts, any other a plain one. */
export async function openSubject(
  { openModel, readText, signal, onProgress }: Pick<CellOptions, "openModel" | "readText" | "signal" | "onProgress">,
  protocol: StructuredProtocol,
): Promise<Subject> {
  const checkpoint = await openCheckpoint(await openModel());
  try {
    const { config } = await describeDecoder(checkpoint);
    const kind = config.spec.head.kind === "classifier" ? "classifier" : "decoder";
    const texts = await (kind === "classifier" ? classifierTexts : decoderTexts)(
      checkpoint,
      config,
      { ...protocol[kind], maxTokens: protocol.maxTokens },
      readText,
      { signal, onProgress },
    );
    return {
      ...texts,
      kind,
      protocol: protocol[kind],
      checkpoint,
      config,
      parameters: modelParameters(config.spec, checkpoint.tensors),
      [Symbol.asyncDispose]: () => checkpoint.close(),
    };
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

/** Runs a checkpoint as it lies, on one thread: cells share the machine. */
export async function qualityOf({ quality }: Subject, checkpoint: Checkpoint, job: JobOptions): Promise<number> {
  using backend = await openBackend(undefined, { threads: 1 });
  using model = await loadModel(checkpoint, backend, { weights: "f32" });
  return await quality(model, job);
}

import type { JobOptions } from "../../../core/index.js";
import type { GradientSource } from "../../../pipeline/index.js";
import { gradientSource } from "../../gradientSource.js";
import type { State } from "../../state.js";
import type { CellOptions, CellResult } from "../contract.js";
import { oneShots } from "./contestants.js";
import { maskedModel, rememberedGradients } from "./maskedModel.js";
import { qualityOf, type Subject } from "./subject.js";

/** A model at one share. */
export interface Point {
  /** Of a contestant, or "dense". */
  name: string;
  /** That was asked for. */
  share: number;
  quality: number;
  macsShare: number;
  heads: readonly number[];
  neurons: readonly number[];
}

/** What a cell came to. */
export interface StructuredResult extends CellResult {
  kind: Subject["kind"];
  measure: Subject["measure"];
  /** Of a calibration text, the mean. */
  tokens: number;
  points: Point[];
}

/** The dense model, and every mask that needs no training, at all shares. What is known is kept, gradients first. */
export async function runOneShots(
  subject: Subject,
  shares: readonly number[],
  { device, state, signal, onProgress }: CellOptions,
): Promise<Point[]> {
  const job = { signal, onProgress };
  const stored = await state.load();
  const points = stored === undefined ? [] : (JSON.parse(stored.points as string) as Point[]);
  let gradients = stored?.gradients as State | undefined;
  const save = () => state.save(points.length + 1, { points: JSON.stringify(points), ...(gradients && { gradients }) });
  const source = rememberedGradients(gradientSource(device), gradients, async (found) => {
    gradients = found;
    await save();
  });
  const add = async (name: string, share: number, find: () => Promise<Point>) => {
    if (points.some((point) => point.name === name && point.share === share)) return;
    points.push(await find());
    await save();
  };
  await add("dense", 1, () => densePoint(subject, job));
  for (const share of shares)
    for (const [name, { stage }] of Object.entries(oneShots))
      await add(name, share, () => maskedPoint(subject, name, share, { ...stage, macs: share }, source, job));
  return points;
}

async function densePoint(subject: Subject, job: JobOptions): Promise<Point> {
  const { blocks } = subject.config;
  return {
    name: "dense",
    share: 1,
    quality: await qualityOf(subject, subject.checkpoint, job),
    macsShare: 1,
    heads: blocks.map(({ kvHeads }) => kvHeads),
    neurons: blocks.map(({ intermediateSize }) => intermediateSize),
  };
}

/** A checkpoint cut by a stage of masks and measured. @param checkpoint default: the subject's own */
export async function maskedPoint(
  subject: Subject,
  name: string,
  share: number,
  stage: Readonly<Record<string, unknown>>,
  gradients: GradientSource,
  job: JobOptions,
  checkpoint = subject.checkpoint,
): Promise<Point> {
  await using smaller = await maskedModel(subject, checkpoint, stage, gradients, job);
  const { macsShare, heads, neurons } = smaller;
  return { name, share, quality: await qualityOf(subject, smaller.checkpoint, job), macsShare, heads, neurons };
}

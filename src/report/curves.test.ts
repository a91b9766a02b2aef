import { describe, expect, it } from "vitest";
import { FormatError } from "../core/index.js";
import { readTrainingLog, trainingCurves } from "./curves.js";

const log = (count: number, more: (step: number) => object = () => ({})) =>
  Array.from({ length: count }, (_, i) =>
    JSON.stringify({ step: i + 1, loss: 9 / (i + 1), rate: 0.1, elapsedMs: i, ...more(i + 1) }),
  ).join("\n");

describe("curves of a training", () => {
  it("draws the loss and what changed, not what stayed or tells of the machine", () => {
    const records = readTrainingLog(
      `${log(30, (step) => ({ flipRate: 1 / step, density: 0.5, prediction: 8 / step }))}\n`,
      "x",
    );
    const page = trainingCurves("tiny", records)!.text;
    expect(Array.from(page.matchAll(/<figcaption>(.*?)</g), ([, title]) => title)).toEqual(["loss", "flipRate"]);
    expect(Array.from(page.matchAll(/<title>(.*?)</g), ([, name]) => name)).toEqual(["loss", "prediction", "flipRate"]);
    expect(page).toContain("Training of tiny");
    const [points] = /points="([^"]+)"/.exec(page)!.slice(1);
    const ys = points.split(" ").map((point) => Number(point.split(",")[1]));
    expect(ys).toHaveLength(30);
    // Down the page is down in loss.
    for (let i = 1; i < ys.length; i++) expect(ys[i]).toBeGreaterThanOrEqual(ys[i - 1]);
  });

  it("keeps the first and the last of many steps, and few between", () => {
    const records = readTrainingLog(log(10_001), "x");
    expect([records[0].step, records.at(-1)!.step]).toEqual([1, 10_001]);
    expect(records.length).toBeLessThanOrEqual(402);
  });

  it("shows nothing of a single step, and escapes what a log calls its metrics", () => {
    expect(trainingCurves("x", readTrainingLog(log(1), "x"))).toBeUndefined();
    const evil = "<script>";
    const { text } = trainingCurves(
      evil,
      readTrainingLog(
        log(3, (step) => ({ [evil]: step })),
        "x",
      ),
    )!;
    expect(text).not.toContain(evil);
  });

  it.each([
    ["no JSON", '{"step":1', /x, line 1: not JSON/],
    ["no step", '{"loss":1}', /step/],
    ["a metric as text", '{"step":1,"loss":"low"}', /loss/],
  ])("refuses %s", (_, text, message) => {
    expect(() => readTrainingLog(text, "x")).toThrow(FormatError);
    expect(() => readTrainingLog(text, "x")).toThrow(message);
  });
});

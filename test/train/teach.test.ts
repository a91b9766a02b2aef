import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test, vi } from "vitest";
import { FormatError, NetworkError, UsageError } from "../../src/core/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { openModelTeacher, type TeachToFileOptions, teachToFile } from "../../src/jobs/index.js";
import { loadTokenizer } from "../../src/text/index.js";
import {
  cutPrompts,
  type EndpointTeacherOptions,
  endpointTeacher,
  Lessons,
  parsePrompts,
  parseRecords,
  type RecordTeacher,
  type TrainingRecord,
} from "../../src/train/index.js";
import { tinyServer } from "../server/tinyServer.js";

const scratch = mkdtempSync(join(tmpdir(), "rarefy-teach-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const tiny = directoryFiles(fileURLToPath(new URL("../../models/tiny-6m", import.meta.url)));
let made = 0;
const newOutput = () => join(scratch, `records-${made++}.jsonl`);
const prompts = ["It was", "The sea", "She said"].map((prompt) => ({ prompt }));
const recordsOf = (path: string): TrainingRecord[] => parseRecords(readFileSync(path, "utf8"), path);
const question = { text: "a", messages: [{ role: "user", content: "a" }], seed: 1 };

/** A teacher that says the prompt backwards. */
const backwards: RecordTeacher = {
  location: "backwards",
  identity: { backwards: 1 },
  answer: async ({ messages }) => ({ text: [...messages.at(-1)!.content].reverse().join(""), finished: true }),
};

describe("a local teacher", () => {
  const settings: TeachToFileOptions = { form: "completion" };
  const open = () => openModelTeacher(tiny, { chat: false, maxTokens: 6, threads: 1 });

  test("stopped anywhere, goes on to the same bytes, asking only what is missing", async () => {
    using teacher = await open();
    const whole = newOutput();
    const result = await teachToFile(teacher, prompts, whole, settings);
    expect(result).toMatchObject({ questions: 3, records: 3, unfinished: 3, leftOut: {} });
    expect(recordsOf(whole).map(({ prompt }) => prompt)).toEqual(prompts.map(({ prompt }) => prompt));
    expect(existsSync(`${whole}.run`)).toBe(false);

    const output = newOutput();
    const stop = new AbortController();
    let asked = 0;
    const counted: RecordTeacher = {
      ...teacher,
      answer: (...given) => {
        if (++asked === 2) stop.abort();
        return teacher.answer(...given);
      },
    };
    await expect(teachToFile(counted, prompts, output, { ...settings, signal: stop.signal })).rejects.toThrow(
      /holds 1 of 3 answers; the same command goes on/,
    );
    expect(existsSync(output)).toBe(false);
    // A process that was killed while it wrote leaves a part of a line.
    const log = join(`${output}.run`, "answers.jsonl");
    writeFileSync(log, `${readFileSync(log, "utf8")}{"question":1,"outc`);
    await expect(teachToFile(counted, prompts, output, { ...settings, seed: 1 })).rejects.toThrow(/other settings/);
    asked = 2;
    const onResume = vi.fn();
    await teachToFile(counted, prompts, output, { ...settings, onResume });
    expect([asked, onResume.mock.calls]).toEqual([4, [[1]]]);
    expect(readFileSync(output, "utf8")).toBe(readFileSync(whole, "utf8"));
    await expect(teachToFile(counted, prompts, output, settings)).rejects.toThrow(/is there already/);
  });

  test("killed after its records had their name, ends what it began and asks nothing", async () => {
    const output = newOutput();
    const [run, kept] = [`${output}.run`, `${output}.kept`];
    const onProgress = () => cpSync(run, kept, { recursive: true });
    await teachToFile(backwards, prompts, output, { ...settings, onProgress });
    const records = readFileSync(output, "utf8");
    cpSync(kept, run, { recursive: true });
    const answer = vi.fn();
    const again = (options: TeachToFileOptions) => teachToFile({ ...backwards, answer }, prompts, output, options);
    await expect(again({ ...settings, seed: 1 })).rejects.toThrow(/is there already/);
    await again(settings);
    expect(answer).not.toHaveBeenCalled();
    expect(readFileSync(output, "utf8")).toBe(records);
    expect(existsSync(run)).toBe(false);
  });

  test("and the server of the same model write the same records", async () => {
    using teacher = await open();
    await using server = tinyServer();
    const endpoint = endpointTeacher({
      ...{ url: "http://localhost/v1/", model: "tiny", chat: false, maxTokens: 6 },
      fetch: (url, init) => server.app.request(url, init),
    });
    const [here, there] = [newOutput(), newOutput()];
    await teachToFile(teacher, prompts, here, settings);
    await teachToFile(endpoint, prompts, there, { ...settings, concurrency: 3 });
    expect(readFileSync(there, "utf8")).toBe(readFileSync(here, "utf8"));
  });

  test("continues beginnings of documents, none of which crosses the end of one", async () => {
    const tokenizer = await loadTokenizer(tiny);
    const [first, second] = ["One day a man went to the sea and saw a ship.", "Rain."];
    const text = `${first}<|endoftext|>${second}<|endoftext|>${first}`;
    const cut = await cutPrompts(tokenizer, text, { promptTokens: 4, every: 6 });
    const tokens = tokenizer.encode(first, { addSpecialTokens: false });
    const windows = [0, 6, 12].filter((from) => from + 4 <= tokens.length);
    const expected = windows.map((from) => ({ prompt: tokenizer.decode(tokens.subarray(from, from + 4)) }));
    expect(windows.length).toBeGreaterThan(1);
    expect(cut).toEqual([...expected, ...expected]);
    expect(await cutPrompts(tokenizer, text, { promptTokens: 4, every: 6, most: 1 })).toEqual(expected.slice(0, 1));
    await expect(cutPrompts(tokenizer, text, { promptTokens: 4, every: 3 })).rejects.toThrow(UsageError);
    await expect(cutPrompts(tokenizer, second, { promptTokens: 40, every: 40 })).rejects.toThrow(/no document/);
  });
});

describe("forms", () => {
  const finished = (text: string) => ({ text, finished: true });

  test("chain of thought learns reasons and answer, and leaves out what has none", () => {
    const lessons = new Lessons([{ prompt: "2+2?" }], { form: "chain-of-thought", answerMark: "So:" });
    expect(lessons.question(0).messages[0].content).toContain('"So:"');
    expect(lessons.record(0, finished("two and two\nSo: 4"))).toEqual({
      ...{ prompt: "2+2?", rationale: "two and two\n", response: "So: 4" },
    });
    for (const text of ["4", "reasons So: ", "So: 4", " "]) {
      expect(lessons.record(0, finished(text)), text).toHaveProperty("leftOut");
    }
    expect(lessons.record(0, { text: "a So: 4", finished: false })).toHaveProperty("leftOut");
  });

  test("an instruction is a message to the teacher and a template to the student", () => {
    const lessons = new Lessons([{ prompt: "Say $& {mark}" }], {
      form: "instruction",
      samples: 2,
      instruction: "Short.",
    });
    expect(lessons.count).toBe(2);
    expect(lessons.question(1).messages).toEqual([
      { role: "system", content: "Short." },
      { role: "user", content: "Say $& {mark}" },
    ]);
    expect(lessons.question(0).seed).not.toBe(lessons.question(1).seed);
    const { prompt } = lessons.record(1, finished("x")) as TrainingRecord;
    expect(prompt).toBe("### Instruction:\nSay $& {mark}\n\n### Response:\n");
    expect(lessons.question(0).text).toBe(`Short.\n\n${prompt}`);
  });

  test("demonstrations are shown as they are learnt behind, or forgotten", () => {
    const demonstrations = ["a", "b", "c"].map((prompt) => ({ prompt, rationale: "r", response: prompt }));
    const shown = { form: "completion", template: "Q{prompt}A", demonstrations, shots: 2 } as const;
    const lessons = new Lessons([{ prompt: "p" }, { prompt: "q" }], shown);
    const record = lessons.record(0, { text: "x", finished: false }) as TrainingRecord;
    expect(record).toMatchObject({ prompt: "QpA", response: "x", unfinished: true });
    const drawn = record.demonstrations!.map(({ prompt }) => prompt[1]);
    expect(record.demonstrations).toEqual(drawn.map((d) => ({ prompt: `Q${d}A`, response: `r${d}` })));
    expect(new Set(drawn).size).toBe(2);
    expect(lessons.question(0).text).toBe(`${drawn.map((d) => `Q${d}Ar${d}\n\n`).join("")}QpA`);
    expect(
      lessons
        .question(0)
        .messages.map(({ role }) => role)
        .join(),
    ).toBe("user,assistant,user,assistant,user");
    const forgotten = new Lessons([{ prompt: "p" }], { ...shown, forgetDemonstrations: true });
    expect(forgotten.record(0, finished("x"))).toEqual({ prompt: "QpA", response: "x" });
    expect(() => new Lessons([], { ...shown, shots: 4 })).toThrow(/4 shots, of 3/);
    const many = [{ prompt: "p", demonstrations: Array(255).fill({ prompt: "a", response: "b" }) }];
    expect(() => new Lessons(many, shown)).toThrow(/257 demonstrations/);
    expect(() => new Lessons([], { ...shown, samples: 0 })).toThrow(/0 samples/);
    expect(() => new Lessons([], { ...shown, template: "Q" })).toThrow(/no \{prompt\}/);
  });

  test("records are prompts too", () => {
    const line = '{"prompt":"a","response":"b","demonstrations":[{"prompt":"c","response":"d"}]}';
    expect(parsePrompts(line, "f")).toEqual([{ prompt: "a", demonstrations: [{ prompt: "c", response: "d" }] }]);
    expect(() => parsePrompts('{"prompt":""}', "f")).toThrow(FormatError);
    expect(() => parsePrompts('{"prompt":"a","x":1}', "f")).toThrow(FormatError);
  });
});

describe("the file of answers", () => {
  test("counts what made no record, and needs one", async () => {
    const output = newOutput();
    const form = "chain-of-thought" as const;
    const two = [{ prompt: "4 :rewsnA os" }, { prompt: "x" }];
    const result = await teachToFile(backwards, two, output, { form, concurrency: 8 });
    expect(result).toMatchObject({ records: 1, leftOut: { "no answer behind its mark": 1 } });
    expect(recordsOf(output)).toEqual([{ prompt: "4 :rewsnA os", rationale: "so ", response: "Answer: 4" }]);
    await expect(teachToFile(backwards, [{ prompt: "x" }], newOutput(), { form })).rejects.toThrow(/no answer made/);
  });

  test.each([
    ['{"question":0,"outcome":{"leftOut":"a"}}\n{"question":0,"outcome":{"leftOut":"a"}}\n', /line 3.*second time/],
    ['{"question":3,"outcome":{"leftOut":"a"}}\n', /line 2.*of 3/],
    ['{"question":0,"outcome":{"prompt":"a"}}\n', /line 2/],
    ["\n", /line 2/],
  ])("that is damaged is refused: %j", async (lines, message) => {
    const output = newOutput();
    const failing = { ...backwards, answer: () => Promise.reject(new NetworkError("gone")) };
    await expect(teachToFile(failing, prompts, output, { form: "completion" })).rejects.toThrow("gone");
    const log = join(`${output}.run`, "answers.jsonl");
    writeFileSync(log, readFileSync(log, "utf8") + lines);
    const again = teachToFile(backwards, prompts, output, { form: "completion" });
    await expect(again).rejects.toThrow(FormatError);
    await expect(teachToFile(backwards, prompts, output, { form: "completion" })).rejects.toThrow(message);
  });

  test("has a name in .jsonl", async () => {
    await expect(teachToFile(backwards, prompts, join(scratch, "a.txt"), { form: "completion" })).rejects.toThrow(
      /\.jsonl/,
    );
  });
});

describe("an endpoint", () => {
  const apiKey = "sk-secret";
  const teach = (fetch: EndpointTeacherOptions["fetch"], more: Partial<EndpointTeacherOptions> = {}) =>
    endpointTeacher({ url: "https://host/v1", model: "m", apiKey, chat: true, retryDelaysMs: [1], fetch, ...more });
  const good = { choices: [{ message: { content: "hi" }, finish_reason: "length" }] };
  const endless = () => new ReadableStream({ pull: (body) => body.enqueue(new Uint8Array(1000).fill(32)) });

  test("is asked with the key and nothing else gets it; a limit is waited for", async () => {
    const fetch = vi.fn<NonNullable<EndpointTeacherOptions["fetch"]>>();
    fetch.mockReturnValueOnce(new Response("", { status: 429, headers: { "retry-after": "1" } }));
    fetch.mockReturnValueOnce(Response.json(good));
    const teacher = teach(fetch, { temperature: 0.5 });
    const startMs = performance.now();
    expect(await teacher.answer(question, undefined)).toEqual({ text: "hi", finished: false });
    expect(performance.now() - startMs).toBeGreaterThan(990);
    const [url, init] = fetch.mock.calls[1];
    expect(url).toBe("https://host/v1/chat/completions");
    expect(init).toMatchObject({ redirect: "manual", headers: { authorization: `Bearer ${apiKey}` } });
    expect(JSON.parse(init.body as string)).toEqual({
      ...{ model: "m", max_tokens: 256, temperature: 0.5, seed: 1, messages: question.messages },
    });
    expect(JSON.stringify(teacher)).not.toContain(apiKey);
  });

  test.each<[string, () => Response, typeof FormatError | typeof NetworkError, RegExp]>([
    ["a page", () => new Response("<html>hello</html>"), FormatError, /a web page/],
    ["no end", () => new Response(endless()), FormatError, /more than 4096 bytes/],
    ["other JSON", () => Response.json({ choices: [] }), FormatError, /choices/],
    ["a number for a text", () => Response.json({ choices: [{ message: { content: 1 } }] }), FormatError, /content/],
    ["what it was sent", () => new Response(`Bearer ${apiKey}`), FormatError, /not JSON.*\[key\]/],
    ["a redirection", () => new Response("", { status: 307 }), NetworkError, /status 307/],
    [
      "a refusal with the key in it",
      () => Response.json({ error: { message: `bad key ${apiKey}` } }, { status: 401 }),
      NetworkError,
      /status 401.*bad key \[key\]/,
    ],
    ["an endless refusal", () => new Response(endless(), { status: 400 }), NetworkError, /status 400/],
  ])("that answers with %s ends in an error, asked once", async (_, answer, kind, message) => {
    const fetch = vi.fn(answer);
    const error = await teach(fetch, { maxAnswerBytes: 4096 })
      .answer(question, undefined)
      .catch((error) => error);
    expect(error).toBeInstanceOf(kind);
    expect(error.message).toMatch(message);
    expect(error.message).not.toContain(apiKey);
    expect(fetch).toHaveBeenCalledTimes(1);
  });

  test("that never answers is given up, and a stop is a stop", async () => {
    const silent: EndpointTeacherOptions["fetch"] = (_, { signal }) =>
      new Promise((_, reject) => signal!.addEventListener("abort", () => reject(signal!.reason)));
    await expect(teach(silent, { timeoutMs: 5 }).answer(question, undefined)).rejects.toThrow(/no answer within/);
    const stop = new AbortController();
    const asked = teach(silent).answer(question, stop.signal);
    stop.abort(new Error("enough"));
    await expect(asked).rejects.toThrow("enough");
  });

  test.each(["ftp://host/v1", "host", "https://user:word@host/v1", "https://host/v1?key=word"])(
    "at %s is refused",
    (url) => {
      expect(() => teach(undefined, { url })).toThrow(UsageError);
      expect(() => teach(undefined, { url })).not.toThrow(/word/);
    },
  );

  test("is not given a key that no header holds", () => {
    expect(() => teach(undefined, { apiKey: "a\nb" })).toThrow(UsageError);
  });
});

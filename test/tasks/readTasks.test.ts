import { describe, expect, test } from "vitest";
import { fakeScorer } from "../../scripts/lmeval/fake.mjs";
import { evaluateTasks, memoryTaskFiles, prepareTasks, readTasks } from "../../src/tasks/index.js";

const utf8 = (text: string) => new TextEncoder().encode(text);
const filesOf = (entries: Readonly<Record<string, string | Uint8Array>>) =>
  memoryTaskFiles(
    "tasks",
    new Map(Object.entries(entries).map(([path, text]) => [path, typeof text === "string" ? utf8(text) : text])),
  );

const choice = `
task: choice
tag: both
output_type: multiple_choice
dataset_path: some/set
dataset_name: part
test_split: test
doc_to_text: question
doc_to_target: answer
doc_to_choice: options
`;
const documents = `${JSON.stringify({ question: "A?", options: ["b", "c"], answer: 1 })}\n`;

describe("tasks are found", () => {
  const files = filesOf({
    "a/choice.yaml": choice,
    "a/sub/other.yaml": "include: ../choice.yaml\ntask: other\ndataset_name: null\nnum_fewshot: 0\n",
    "a/sub/unnamed.yaml": "include: ../choice.yaml\ntask: null\n",
    "group.yaml": "group: all\ntask: [other, both]\n",
  });
  const names = async (...wanted: string[]) => (await readTasks(files, wanted)).map(({ name }) => name);

  test("by path, folder, name, tag and group, each once", async () => {
    expect(await names("a/choice.yaml")).toEqual(["choice"]);
    expect(await names("a")).toEqual(["choice", "other"]);
    expect(await names("other")).toEqual(["other"]);
    expect(await names("both")).toEqual(["choice", "other"]);
    expect(await names("all", "choice")).toEqual(["other", "choice"]);
    await expect(names("neither")).rejects.toThrow(/"neither" is no task file or folder/);
  });
});

describe("data is found", () => {
  test.each([
    "some/set/part/test.jsonl",
    "set/part/test.jsonl",
    "some/set/test.jsonl",
    "choice/test.json",
    "some/set/part/data/test.jsonl",
  ])("in %s", async (path) => {
    const files = filesOf({ "choice.yaml": choice, [path]: documents });
    const [task] = await readTasks(files, ["choice"]);
    const [{ questions }] = await prepareTasks([task], { tasks: files });
    expect(questions[0]).toMatchObject({ gold: [1], continuations: [{ context: "A?", continuation: " b" }, {}] });
  });

  test("or what was looked for is told", async () => {
    const files = filesOf({ "choice.yaml": choice });
    const prepared = prepareTasks(await readTasks(files, ["choice"]), { tasks: files });
    await expect(prepared).rejects.toThrow(/dataset_path: no data of the split test in tasks; expected test.jsonl or/);
  });
});

describe("what a file must not say is refused with its field", () => {
  const task = (more: string) => `${choice}${more}`;
  test.each([
    [
      "a function of Python",
      task("process_docs: !function utils.process_docs"),
      /process_docs: the function utils.process_docs/,
    ],
    ["a function in place of a template", task("description: !function a.b"), /description: .*/],
    ["a metric that is not known", task("metric_list: [{metric: wit}]"), /metric_list.0.metric: .*acc_norm/],
    [
      "a metric of another kind",
      task("metric_list: [{metric: bleu}]"),
      /metric_list.0.metric: bleu; expected one of acc/,
    ],
    ["a field that is not known", task("shell: rm"), /shell/],
    ["code", task("process_results: x"), /process_results: results are made by the metrics/],
    ["a tag of another kind", task("description: !!python/object:os.system x"), /Unresolved tag|!!python/],
    ["a file outside of the folder", task("include: ../../etc/passwd"), /is not in the folder of the tasks/],
    ["a file that includes itself", task("include: choice.yaml"), /include: files that include each other/],
    ["a template that never ends", task("gen_prefix: '{{'"), /gen_prefix: not a template/],
    [
      "aliases that grow",
      `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c]\n${choice}`,
      /alias/i,
    ],
  ])("%s", async (_name, text, message) => {
    await expect(readTasks(filesOf({ "choice.yaml": text }), ["choice.yaml"])).rejects.toThrow(message);
  });

  test.each([
    ["a column that is missing", { options: ["b"], answer: 0 }, /doc_to_text: the template stopped|question/],
    ["choices that are none", { question: "A?", options: "b", answer: 0 }, /doc_to_choice: "b" of a document/],
    ["an answer of another kind", { question: "A?", options: ["b"], answer: {} }, /doc_to_target: .* of a document/],
  ])("%s, of a document", async (_name, document, message) => {
    const given = choice.replace("doc_to_text: question", 'doc_to_text: "{{question}}"');
    const files = filesOf({ "choice.yaml": given, "choice/test.jsonl": JSON.stringify(document) });
    const tasks = await readTasks(files, ["choice"]);
    await expect(prepareTasks(tasks, { tasks: files })).rejects.toThrow(message);
  });

  test("expressions that could run for ever", async () => {
    const answer = choice.replace("multiple_choice", "generate_until").replace(/doc_to_choice.*/, "");
    const filter = "filter_list: [{name: x, filter: [{function: regex, regex_pattern: '(?=a)'}]}]";
    await expect(readTasks(filesOf({ "a.yaml": `${answer}${filter}` }), ["a.yaml"])).rejects.toThrow(
      /filter_list.0.filter.0.regex_pattern: the expression/,
    );
    const evil = "filter_list: [{name: x, filter: [{function: regex, regex_pattern: '(a+)+$'}]}]";
    const line = JSON.stringify({ question: "A?", answer: "b" });
    const files = filesOf({ "a.yaml": `${answer}${evil}`, "choice/test.jsonl": line });
    const prepared = await prepareTasks(await readTasks(files, ["a.yaml"]), { tasks: files });
    const scorer = { ...fakeScorer(), answers: async () => [`${"a".repeat(50_000)}!`] };
    const [{ figures }] = await evaluateTasks(scorer, prepared);
    expect(figures[0].value).toBe(0);
  });
});

test("the functions of HellaSwag and WinoGrande are known by their names", async () => {
  const files = filesOf({
    "hellaswag.yaml": `
task: hs
output_type: multiple_choice
dataset_path: Rowan/hellaswag
test_split: test
process_docs: !function utils.process_docs
doc_to_text: "{{query}}"
doc_to_target: "{{label}}"
doc_to_choice: choices
`,
    "winogrande.yaml": `
task: wg
output_type: multiple_choice
dataset_path: allenai/winogrande
test_split: test
doc_to_text: !function preprocess_winogrande.doc_to_text
doc_to_target: !function preprocess_winogrande.doc_to_target
doc_to_choice: !function preprocess_winogrande.doc_to_choice
`,
    "hs/test.jsonl": JSON.stringify({
      activity_label: "Sailing",
      ctx_a: "They set out. [header] x",
      ctx_b: "the WIND",
      endings: ["rose. [title] Now", "fell  [step] down."],
      label: "1",
    }),
    "wg/test.jsonl": JSON.stringify({
      sentence: "Ann asked Sue as _ knew.",
      option1: "Ann",
      option2: "Sue",
      answer: "2",
    }),
  });
  const prepared = await prepareTasks(await readTasks(files, ["hs", "wg"]), { tasks: files });
  expect(prepared.map(({ questions }) => questions[0].continuations)).toEqual([
    [
      { context: "Sailing: They set out. x The wind", continuation: " rose.. Now" },
      { context: "Sailing: They set out. x The wind", continuation: " fell  down." },
    ],
    [
      { context: "Ann asked Sue as Ann", continuation: " knew." },
      { context: "Ann asked Sue as Sue", continuation: " knew." },
    ],
  ]);
  expect(prepared.map(({ questions }) => questions[0].gold)).toEqual([[1], [1]]);
});

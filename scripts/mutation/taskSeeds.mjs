// Tasks in lm-evaluation-harness' format, and a document of them, that readers get damaged.

export const task = {
  task: "damaged",
  output_type: "multiple_choice",
  test_split: "test",
  fewshot_config: { sampler: "first_n", samples: [{ question: "B?", choices: { text: ["d"] }, answer: 0 }] },
  num_fewshot: 1,
  description: "Of {{question|length}} letters.",
  doc_to_text: "{{question}}",
  doc_to_choice: "{{choices.text}}",
  doc_to_target: "answer",
  metric_list: [{ metric: "acc", aggregation: "mean" }, { metric: "acc_norm" }],
};
export const taskFile = `task: damaged
output_type: generate_until
test_split: test
doc_to_text: "{{question}} {% for t in choices.text %}{{t}},{% endfor %}"
doc_to_target: answer
filter_list:
  - name: x
    filter: [{function: regex, regex_pattern: "(a|b)+ ([0-9]+)"}, {function: take_first}]
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
`;
export const taskDocument = { question: "A?", choices: { text: ["b", "c"], label: ["A", "B"] }, answer: 1 };

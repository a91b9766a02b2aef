"""
Runs lm-evaluation-harness on data sets in local files, as it is but for where data comes from, and writes what it asked and
what it came to as JSON. Only check-lm-eval.mjs uses it; Python is no part of the package.

    oracle.py fake DATA TASKS.. --shots N --out FILE     a language model that is a hash of the text
    oracle.py http DATA TASKS.. --shots N --out FILE --url URL --model NAME --tokenizer DIR
"""

import argparse
import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["DISABLE_MULTIPROC"] = "1"
os.environ["LMEVAL_DISABLE_MULTIPROC"] = "1"

import datasets  # noqa: E402

load_elsewhere = datasets.load_dataset


def load_local(path, name=None, **kwargs):
    folder = os.path.join(arguments.data, path, name or "")
    if path in ("json", "parquet") or not os.path.isdir(folder):
        return load_elsewhere(path, name, **kwargs)
    files = {f.rsplit(".", 1)[0]: os.path.join(folder, f) for f in sorted(os.listdir(folder)) if f.endswith(".jsonl")}
    return load_elsewhere("json", data_files=files)


datasets.load_dataset = load_local

import lm_eval  # noqa: E402
from lm_eval.api.model import LM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402


def hash_of(text):
    """FNV-1a over UTF-8."""
    value = 0x811C9DC5
    for byte in text.encode("utf-8"):
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


class Fake(LM):
    tokenizer_name = "fake"

    def __init__(self):
        super().__init__()
        self.asked = []

    def loglikelihood(self, requests, disable_tqdm=False):
        answers = []
        for context, continuation in (request.args for request in requests):
            value = hash_of(context + "\x00" + continuation)
            self.asked.append([context, continuation])
            answers.append((-(value % 10007) / 97, value % 3 == 0))
        return answers

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        self.asked.extend(list(request.args) for request in requests)
        return [-(hash_of(request.args[0]) % 10007) / 97 - len(request.args[0]) for request in requests]

    def generate_until(self, requests, disable_tqdm=False):
        answers = []
        for request in requests:
            prompt, settings = request.args
            self.asked.append([prompt, settings["until"]])
            words = prompt.split()
            at = hash_of(prompt) % 7
            answers.append(" " + " ".join(words[-8 - at : -2]) + f" #### {at}")
        return answers

    def chat_template(self, name=False):
        return "fake"

    def apply_chat_template(self, messages, add_generation_prompt=True):
        text = "".join(f"<{m['role']}>{m['content']}</{m['role']}>" for m in messages)
        return text + "<assistant>" if add_generation_prompt else text[: -len("</assistant>")]


parser = argparse.ArgumentParser()
parser.add_argument("mode", choices=["fake", "http"])
parser.add_argument("data")
parser.add_argument("tasks", nargs="+")
parser.add_argument("--shots", type=int)
parser.add_argument("--include")
parser.add_argument("--chat", action="store_true")
parser.add_argument("--resamples", type=int, default=100000)
parser.add_argument("--out", required=True)
parser.add_argument("--url")
parser.add_argument("--model")
parser.add_argument("--tokenizer")
parser.add_argument("--length", type=int, default=1024)
parser.add_argument("--batch", type=int, default=1)
parser.add_argument("--concurrent", type=int, default=1)
parser.add_argument("--as-text", action="store_true")
arguments = parser.parse_args()

if arguments.mode == "fake":
    model, model_args = Fake(), None
else:
    model = "local-completions"
    model_args = {
        "model": arguments.model,
        "base_url": arguments.url,
        "tokenizer": arguments.tokenizer,
        "tokenizer_backend": "huggingface",
        "max_length": arguments.length,
        "num_concurrent": arguments.concurrent,
        "tokenized_requests": not arguments.as_text,
    }

results = lm_eval.simple_evaluate(
    model=model,
    model_args=model_args,
    tasks=arguments.tasks,
    num_fewshot=arguments.shots,
    batch_size=arguments.batch,
    task_manager=TaskManager(include_path=arguments.include),
    apply_chat_template=arguments.chat,
    fewshot_as_multiturn=arguments.chat,
    bootstrap_iters=arguments.resamples,
    log_samples=True,
)
kept = {key: results[key] for key in ("results", "n-shot", "versions", "higher_is_better", "n-samples")}
kept["asked"] = model.asked if arguments.mode == "fake" else None
if arguments.mode == "http":
    kept["resps"] = {
        task: [[list(r[0]) if isinstance(r[0], (tuple, list)) else r[0] for r in s["resps"]] for s in samples]
        for task, samples in results["samples"].items()
    }
with open(arguments.out, "w") as file:
    json.dump(kept, file, default=float)

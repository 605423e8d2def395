"""The documents that quickstart's programs write, and the check that every read of one must pass.

Three shapes, by file name:

  *.md     lines "[who N] text", the last one "[who N] end sum=MD5"; the sum is over the lines without "[who N] ".
  *.json   {"by": "who N", "items": [{"by": "who N", "text": ...}, ...], "sum": MD5 of the texts}
  *.jsonl  a log: each line {"by": "who N", "text": ..., "end": "who N"}

"who N" names one save of one program. A document that carries two of them was put together from two saves.
"""

import hashlib
import json
import re

WHOLE, EMPTY, TORN, MIXED, MISSING = "whole", "empty", "torn", "mixed", "missing"

_LINE = re.compile(rb"\[([^\]]+)\] ([^\n]*)\n")
_BY = re.compile(rb'"by": ?"([^"]+)"')
_END = re.compile(rb"end sum=([0-9a-f]{32})")

FILLER = "the plan of record says what is next, who does it and what it waits for"


def text_template(lines):
    """A *.md document with "@" where each line's "[who N]" goes."""
    body = [f"{n:03} {FILLER} {n * 7919 % 1000}" for n in range(lines)]
    total = hashlib.md5("".join(line + "\n" for line in body).encode()).hexdigest()
    return "".join(f"@ {line}\n" for line in [*body, f"end sum={total}"])


def text_document(by, lines):
    """A *.md document."""
    return text_template(lines).replace("@", f"[{by}]")


def json_document(by, items):
    """A *.json document, as an object."""
    texts = [f"{n:03} {FILLER} {n * 7919 % 1000}" for n in range(items)]
    return {
        "by": by,
        "items": [{"by": by, "text": text} for text in texts],
        "sum": json_sum(texts),
    }


def json_sum(texts):
    """The sum in a *.json document."""
    return hashlib.md5("".join(texts).encode()).hexdigest()


def judge(name, data):
    """WHOLE, EMPTY, TORN (cut short or damaged) or MIXED (parts of two saves), for the bytes that one read of `name` gave."""
    if not data:
        return EMPTY
    if name.endswith(".jsonl"):
        return _judge_log(data)
    return _judge_json(data) if name.endswith(".json") else _judge_text(data)


def _judge_text(data):
    lines = _LINE.findall(data)
    if len({by for by, _ in lines}) > 1:
        return MIXED
    if not lines or data != b"".join(b"[%s] %s\n" % line for line in lines):
        return TORN
    body = [text for _, text in lines]
    end = _END.fullmatch(body.pop())
    if not end:
        return TORN
    total = hashlib.md5(b"".join(text + b"\n" for text in body)).hexdigest()
    return WHOLE if total.encode() == end[1] else TORN


def _judge_json(data):
    if len(set(_BY.findall(data))) > 1:
        return MIXED
    try:
        document = json.loads(data)
        texts = [item["text"] for item in document["items"]]
        return WHOLE if json_sum(texts) == document["sum"] else TORN
    except (ValueError, KeyError, TypeError):
        return TORN


def _judge_log(data):
    lines = data.split(b"\n")
    verdict = WHOLE
    if lines.pop() != b"":
        verdict = TORN
    for line in lines:
        if len(set(_BY.findall(line))) > 1:
            return MIXED
        try:
            entry = json.loads(line)
            whole = entry["by"] == entry["end"]
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            verdict = TORN
    return verdict

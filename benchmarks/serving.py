"""`zhuyi serve` under load: many clients at once on loopback, each answer compared with the command line's.

    python benchmarks/serving.py [--run zh-en] [--clients 64] [--seconds 120] [--out runs/benchmarks] [--quick]

Texts are sentences of Tatoeba's test set where data/tatoeba-zh-en is, one to six of them together; otherwise made up.
They are translated by the command line first. Then one client asks for one text after the other for a quarter of the
time, then all clients at once, each as soon as it has its answer; and in the end twice as many as the queue holds, who
are told to come again, and one who comes after them. Answers are equal where their texts are, or their scores within
1e-4 (DESIGN, Precision). The clients share the machine with the server.
"""

import argparse
import asyncio
import gzip
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contest import report
from contest.http_clients import Answer, Connection, crowd

from zhuyi.doctor import examine

TATOEBA = Path("data/tatoeba-zh-en/test.tsv.gz")
POOL = 600  # different texts
QUEUE = 64  # of the server that is asked too much
NEAR = 1e-4  # scores that differ by less are equal
MOST_NEAR = 0.005  # of the texts
MADE_UP = ("我们明天去北京", "他昨天买了三本书", "今天天气很好", "你想吃什么", "这个问题不难", "火车几点开", "我不知道")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="zh-en")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument(
        "--quick", action="store_true", help="a few clients for a second: whether it runs, not how fast"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    clients, seconds, pool = (4, 1.0, 12) if arguments.quick else (arguments.clients, arguments.seconds, POOL)
    texts = mixed_texts(pool)
    print(f"translating {len(texts)} texts by the command line", file=sys.stderr)
    expected = by_command(arguments.run, texts)
    found: dict[str, Any] = {
        "machine": examine(),
        "versions": report.versions(),
        "run": arguments.run,
        "characters": sorted(map(len, texts)),
    }
    with server(arguments.run) as (address, held):
        print(f"one client, {seconds / 4:.0f} s; then {clients}, {seconds:.0f} s", file=sys.stderr)
        found["one"] = summary(asyncio.run(crowd(address, texts, orders(1, pool), seconds / 4)), expected)
        begun = time.monotonic()
        answers = asyncio.run(crowd(address, texts, orders(clients, pool), seconds))
        found["many"] = summary(answers, expected) | {"clients": clients}
        found["megabytes"] = [(round(at - begun, 1), size) for at, size in held if at >= begun]
    queue = min(QUEUE, clients)
    with server(arguments.run, "--queue-size", str(queue)) as (address, _):
        found["too_many"] = overloaded(address, texts, expected, queue, seconds / 12)
    text = table(found)
    (arguments.out / "serving.json").write_text(json.dumps(found, ensure_ascii=False, indent=1), encoding="utf-8")
    (arguments.out / "serving.txt").write_text(text, encoding="utf-8")
    print(text)
    if faults := wrong(found):
        sys.exit("; ".join(faults))


def mixed_texts(count: int) -> list[str]:
    """One to six sentences together, the same at each call; no two alike."""
    rng = random.Random(6)
    if TATOEBA.exists():
        with gzip.open(TATOEBA, "rt", encoding="utf-8") as file:
            sentences = [line.split("\t")[0] for line in file]
    else:
        sentences = [f"{one}，{other}。" for one in MADE_UP for other in MADE_UP]
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts["".join(rng.choices(sentences, k=rng.choice((1, 1, 1, 1, 2, 3, 6))))] = None
    return list(texts)


def orders(clients: int, pool: int) -> list[list[int]]:
    """In which order each client asks for the texts."""
    return [random.Random(client).sample(range(pool), pool) for client in range(clients)]


def by_command(run: str, texts: Sequence[str]) -> list[dict[str, Any]]:
    """What the command line makes of the texts."""
    with tempfile.TemporaryDirectory() as folder:
        lines, answers = Path(folder, "texts"), Path(folder, "answers")
        lines.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        files = ["--input", str(lines), "--output", str(answers), "--jsonl"]
        subprocess.run([sys.executable, "-m", "zhuyi", "translate", run, *files], check=True, stderr=subprocess.DEVNULL)
        return [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]


@contextmanager
def server(run: str, *options: str) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """A server in a process of its own; its address, and the megabytes that it holds, each second."""
    command = [sys.executable, "-m", "zhuyi", "serve", run, "--port", "0", *options]
    held: list[tuple[float, float]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8") as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(1.0):
                held.append((time.monotonic(), resident_megabytes(process.pid)))

        watch = threading.Thread(target=look, daemon=True)
        try:
            asyncio.run(until_ready(address))
            watch.start()
            yield address, held
        finally:
            ended.set()
            process.terminate()
            if process.wait(60):
                print(f"the server ended with status {process.returncode}", file=sys.stderr)


def resident_megabytes(process: int) -> float:
    """What a process holds; 0 where the system does not say."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(encoding="ascii"))
    except OSError:
        return 0.0
    return int(found[1]) * 1024 / 1e6 if found else 0.0


async def until_ready(address: str) -> None:
    """Wait until all runs are loaded."""
    connection = Connection(address)
    while (await connection.ask("/readyz"))[0] != 200:
        await asyncio.sleep(0.1)
    connection.close()


def summary(clients: Sequence[Sequence[Answer]], expected: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many answers, how fast, and how many of them are the command line's."""
    answers = [answer for client in clients for answer in client if answer.status == 200]
    seconds = sorted(answer.seconds for answer in answers)
    begun = min(answer.ended - answer.seconds for answer in answers)
    taken = max(answer.ended for answer in answers) - begun
    same = near = 0
    for answer in answers:
        (found,) = answer.body["translations"]
        wanted = expected[answer.text]
        same += found["text"] == wanted["text"]
        near += found["text"] != wanted["text"] and abs(found["score"] - wanted["score"]) < NEAR
    return {
        "texts": len(answers),
        "seconds": taken,
        "texts_per_second": len(answers) / taken,
        "same": same,
        "near": near,
        "other": len(answers) - same - near,
        "refused": sum(answer.status != 200 for client in clients for answer in client),
        "p50_seconds": statistics.median(seconds),
        "p99_seconds": seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))],
        "most_seconds": seconds[-1],
    }


def overloaded(
    address: str, texts: Sequence[str], expected: Sequence[dict[str, Any]], queue: int, seconds: float
) -> dict[str, Any]:
    """Twice as many clients as the queue holds, who do not wait when they are told to; and who comes after them."""

    async def run() -> tuple[list[list[Answer]], float, int]:
        found = await crowd(address, texts, orders(2 * queue, len(texts)), seconds)
        begun, refusals, status = time.monotonic(), 0, 429
        connection = Connection(address)
        while status != 200:
            status, _, _ = await connection.ask("/v1/translate", {"texts": ["你好。"]})
            refusals += status != 200
        connection.close()
        return found, time.monotonic() - begun, refusals

    found, recovery, refusals = asyncio.run(run())
    refused = [answer for client in found for answer in client if answer.status != 200]
    return summary(found, expected) | {
        "queue": queue,
        "clients": 2 * queue,
        "statuses": sorted({answer.status for answer in refused}),
        "retry_after": sorted({int(answer.retry_after or 0) for answer in refused}),
        "recovery_seconds": recovery,
        "refused_after": refusals,
    }


def wrong(found: dict[str, Any]) -> list[str]:
    """What must not be, whatever the machine."""
    faults = []
    for name in ("one", "many", "too_many"):
        each = found[name]
        if each["other"]:
            faults.append(f"{name}: {each['other']} answers are not the command line's")
        if each["near"] > MOST_NEAR * each["texts"] + 1:
            faults.append(f"{name}: {each['near']} answers differ by less than {NEAR}, of {each['texts']}")
    if found["one"]["refused"] or found["many"]["refused"]:
        faults.append("requests within the queue's bound were refused")
    if found["too_many"]["statuses"] not in ([], [429]):
        faults.append(f"beyond the bound: statuses {found['too_many']['statuses']}")
    return faults


def table(found: dict[str, Any]) -> str:
    """What was measured."""
    one, many, over = found["one"], found["many"], found["too_many"]
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    lengths = found["characters"]
    lines = [
        f"machine: {machine}",
        f"versions: {', '.join(' '.join(pair) for pair in found['versions'].items())}",
        "",
        f"{found['run']}: {len(lengths)} texts of {lengths[0]} to {lengths[-1]} characters, "
        f"median {statistics.median(lengths):.0f}",
        "",
        f"{'clients':>12} {'texts':>8} {'a second':>9} {'p50 s':>7} {'p99 s':>7} {'most s':>7} "
        f"{'same':>8} {'near':>5} {'other':>6} {'429':>7}",
    ]
    for name, each in (("1", one), (str(many["clients"]), many), (f"{over['clients']}/{over['queue']}", over)):
        lines.append(
            f"{name:>12} {each['texts']:8,} {each['texts_per_second']:9.1f} {each['p50_seconds']:7.3f} "
            f"{each['p99_seconds']:7.3f} {each['most_seconds']:7.3f} {each['same']:8,} {each['near']:5} "
            f"{each['other']:6} {each['refused']:7,}"
        )
    ratio = many["texts_per_second"] / one["texts_per_second"]
    lines += ["", f"{many['clients']} clients to one: {ratio:.1f} times the texts a second"]
    lines.append(
        f"beyond the queue of {over['queue']}: Retry-After {over['retry_after']} s; who comes after has an answer in "
        f"{over['recovery_seconds']:.2f} s, after {over['refused_after']} refusals"
    )
    if sizes := [size for _, size in found["megabytes"] if size]:
        quarter = max(1, len(sizes) // 4)
        held = ", ".join(
            f"{statistics.median(sizes[i * quarter : (i + 1) * quarter] or sizes[-1:]):.0f}" for i in range(4)
        )
        lines.append(f"memory of the server, in the quarters of the time: {held} MB; at most {max(sizes):.0f}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

"""The engine: one batch for many clients, and nobody who waits for another longer than a step."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving.tiny_runs import write_texts, write_translations
from tests.tiny import number_pairs

import zhuyi
from zhuyi.errors import InputError
from zhuyi.predict import Generator as TextGenerator
from zhuyi.predict import Translation, Translator
from zhuyi.serving.engine import Engine
from zhuyi.serving.jobs import TranslateOptions
from zhuyi.serving.refusals import Draining, EngineStopped, NotReady, QueueFull, TookTooLong, UnknownRun
from zhuyi.serving.runs import RunToServe, runs_to_serve
from zhuyi.serving.settings import ServeSettings
from zhuyi.tasks.glossary import Glossary
from zhuyi.tasks.text_search import TextSearch

TEXTS = [source for source, _ in number_pairs(24, digits=(1, 2, 5, 9), seed=4)]
LONG = "\n".join(source for source, _ in number_pairs(40, digits=(9,), seed=9))  # some hundred steps, one by one


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_translations(folder)
    write_texts(folder)
    return folder


@pytest.fixture(scope="module")
def translator(folder: Path) -> Translator:
    return zhuyi.load(folder / "zh-en")


@pytest.fixture(scope="module")
def writer(folder: Path) -> TextGenerator:
    return zhuyi.load(folder / "writer")


Used = Callable[..., Any]


@pytest.fixture
def use(folder: Path) -> Used:
    """Run a coroutine function of an engine that is ready, and end the engine."""

    def used(what: Callable[[Engine], Awaitable[Any]], *names: str, **settings: Any) -> Any:
        runs = [RunToServe(name, str(folder / name), "float32") for name in names or ("zh-en",)]
        engine = Engine(runs, ServeSettings(**settings))

        async def whole() -> Any:
            engine.start()
            while not engine.is_ready:
                assert engine.failure is None, engine.failure
                await asyncio.sleep(0.005)
            return await what(engine)

        try:
            return asyncio.run(whole())
        finally:
            engine.stop()
            assert not engine._thread.is_alive()

    return used


def same(found: Translation, wanted: Translation) -> bool:
    """The same text, or another one with nearly the same score."""
    return found.text == wanted.text or abs(found.score - wanted.score) < 1e-4


async def settled(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does; how long it takes is no matter of these tests."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def rows(engine: Engine, run: str) -> float:
    return engine.metrics.registry.get_sample_value("zhuyi_batch_rows", {"run": run}) or 0.0


def test_everyone_gets_their_own_answer(use: Used, translator: Translator) -> None:
    async def clients(engine: Engine) -> list[list[Translation]]:
        run = engine.run("zh-en")
        options = [TranslateOptions(beam=1), TranslateOptions(beam=3, n_best=2)]
        asked = [engine.translate(run, TEXTS[i : i + 1 + i % 3], options[i % 2]) for i in range(len(TEXTS))]
        return await asyncio.gather(*asked)

    for i, found in enumerate(use(clients)):
        wanted = translator.translate(TEXTS[i : i + 1 + i % 3], beam=3 if i % 2 else 1, n_best=1 + i % 2)
        assert len(found) == len(wanted)
        assert all(map(same, found, wanted)), i


def test_clients_share_a_batch(use: Used) -> None:
    most: list[float] = []

    async def clients(engine: Engine) -> None:
        run = engine.run("zh-en")
        tasks = [asyncio.ensure_future(engine.translate(run, [LONG], TranslateOptions(beam=1))) for _ in range(2)]
        tasks += [asyncio.ensure_future(engine.translate(run, [text], TranslateOptions(beam=1))) for text in TEXTS]
        while not all(task.done() for task in tasks):
            most.append(rows(engine, "zh-en"))
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)
        await settled(lambda: not engine._works)
        assert (engine.in_system, engine._cost, rows(engine, "zh-en")) == (0, 0, 0)

    use(clients)
    assert max(most) > 10  # whoever's they are


def test_a_long_text_is_read_between_the_steps_of_others(
    use: Used, translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long reading takes, here a turn for each line, whoever comes meanwhile is read before its end."""
    monkeypatch.setattr("zhuyi.serving.work.READ_SECONDS", 0.0)
    long = "\n".join(source for source, _ in number_pairs(400, digits=(9,), seed=9))
    read: list[str] = []
    another_came = threading.Event()
    plan = TextSearch.plan

    def noted(self: TextSearch, text: str, glossary: Glossary | None = None) -> Iterator[Any]:
        for part in plan(self, text, glossary):
            read.append(text)
            assert another_came.wait(60)
            yield part

    monkeypatch.setattr(TextSearch, "plan", noted)

    async def clients(engine: Engine) -> list[Translation]:
        run = engine.run("zh-en")
        tasks = [asyncio.ensure_future(engine.translate(run, [long], TranslateOptions(beam=1)))]
        await settled(lambda: bool(read))
        tasks.append(asyncio.ensure_future(engine.translate(run, TEXTS[:1], TranslateOptions(beam=1))))
        await asyncio.sleep(0)
        another_came.set()
        found = await tasks[1]
        assert 0 < read.index(TEXTS[0]) < 10
        tasks[0].cancel()
        await settled(lambda: not engine.in_system)
        return found

    found = use(clients, batch_wait_seconds=0.0)
    assert same(found[0], translator.translate(TEXTS[:1], beam=1)[0])


def test_chunks_are_those_of_the_generator(use: Used, writer: TextGenerator) -> None:
    decode = writer.decode_config(max_new_tokens=30, temperature=0.9, stop=["e"])
    prompts = ["abc", "Hello", ""]
    wanted = writer.generate(prompts, samples=2, seed=5, max_new_tokens=30, temperature=0.9, stop=["e"])

    async def client(engine: Engine) -> list[Any]:
        run = engine.run("writer")
        # Another one draws beside it, with options of its own for what is each text's own.
        other = engine.generate(run, ["xyz"], writer.decode_config(max_new_tokens=40, temperature=0.9), seed=9)
        chunks = [chunk async for chunk in engine.generate(run, prompts, decode, samples=2, seed=5)]
        assert [chunk async for chunk in other][-1].written is not None
        return chunks

    chunks = use(client, "writer")
    whole = {(chunk.prompt, chunk.sample): chunk.written for chunk in chunks if chunk.written}
    assert len(whole) == 6
    for (prompt, sample), written in whole.items():
        assert written.text == wanted[2 * prompt + sample].text
        assert written.text == "".join(c.text for c in chunks if (c.prompt, c.sample) == (prompt, sample))


def test_who_leaves_frees_rows_and_place(use: Used, writer: TextGenerator) -> None:
    endless = writer.decode_config(max_new_tokens=4000, temperature=1.0)

    async def clients(engine: Engine) -> None:
        stream = engine.generate(engine.run("writer"), ["a"], endless, samples=1)
        assert (await anext(stream)).prompt == 0
        waiting = asyncio.ensure_future(engine.translate(engine.run("zh-en"), [LONG]))
        await settled(lambda: rows(engine, "zh-en") > 0)
        assert engine.in_system == 2
        await stream.aclose()
        await stream.aclose()  # twice is once
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert engine.in_system == 0
        await settled(lambda: not engine._works and not engine._where)
        stream = engine.generate(engine.run("writer"), ["a"], endless)
        await anext(stream)
        del stream  # forgotten without a word
        await settled(lambda: engine.in_system == 0 and not engine._works)

    use(clients, "zh-en", "writer")


def test_beyond_the_bound_come_again_and_then_you_may(use: Used) -> None:
    async def clients(engine: Engine) -> None:
        run, free = engine.run("zh-en"), threading.Event()
        blocked = asyncio.ensure_future(engine.call(run, free.wait, cost=1))
        waiting = [asyncio.ensure_future(engine.translate(run, [text])) for text in TEXTS[:3]]
        await asyncio.sleep(0)
        assert engine.in_system == 4
        for _ in range(20):
            with pytest.raises(QueueFull) as refused:
                await engine.translate(run, TEXTS[:1])
            assert 1 <= (refused.value.retry_after_seconds or 0) <= 60
        free.set()
        assert await blocked is True
        await asyncio.gather(*waiting)
        assert await engine.translate(run, TEXTS[:1])

    use(clients, queue_size=4)


def test_the_queue_is_bounded_by_its_work_too(use: Used) -> None:
    async def clients(engine: Engine) -> None:
        run, free = engine.run("zh-en"), threading.Event()
        large = asyncio.ensure_future(engine.call(run, free.wait, cost=1000))  # alone it may be larger
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await engine.call(run, free.wait, cost=1)
        free.set()
        await large
        assert await engine.call(run, lambda: 3, cost=100) == 3

    use(clients, queue_cost=100)


def test_other_runs_have_their_turns_while_one_is_at_long_work(use: Used, writer: TextGenerator) -> None:
    """A piece of the long work, a step of the others: nobody waits for its end."""
    pieces: list[str] = []

    def long_work() -> Generator[None, None, str]:
        for _ in range(400):
            time.sleep(0.002)
            pieces.append("piece")
            yield
        return "whole"

    async def clients(engine: Engine) -> None:
        long = asyncio.ensure_future(engine.piecewise(engine.run("writer"), long_work, cost=1))
        await settled(lambda: len(pieces) > 2)
        await engine.translate(engine.run("zh-en"), TEXTS[:1], TranslateOptions(beam=1))
        await engine.call(engine.run("writer"), lambda: None, cost=1)  # of the same run too
        assert not long.done()
        assert await long == "whole"
        assert len(pieces) == 400

    use(clients, "zh-en", "writer")


def test_pieces_stop_when_their_client_leaves(use: Used) -> None:
    closed = threading.Event()

    def endless() -> Generator[None, None, None]:
        try:
            while True:
                yield
        finally:
            closed.set()

    async def client(engine: Engine) -> None:
        work = asyncio.ensure_future(engine.piecewise(engine.run("zh-en"), endless, cost=1))
        await settled(lambda: bool(engine._works))
        work.cancel()
        await settled(closed.is_set)
        await settled(lambda: not engine._works)

    use(client)


def test_items_of_several_clients_are_done_by_one_call(use: Used) -> None:
    calls: list[list[int]] = []

    def doubled(items: list[int]) -> list[int]:
        calls.append(items)
        return [2 * item for item in items]

    async def clients(engine: Engine) -> list[list[int]]:
        run, free = engine.run("zh-en"), threading.Event()
        blocked = asyncio.ensure_future(engine.call(run, free.wait, cost=1))
        asked = [asyncio.ensure_future(engine.batched(run, "double", [i, i + 10], doubled, cost=2)) for i in range(5)]
        other = asyncio.ensure_future(engine.batched(run, "other", [7], doubled, cost=1))
        await asyncio.sleep(0)
        free.set()
        await blocked
        assert await other == [14]
        return await asyncio.gather(*asked)

    assert use(clients) == [[2 * i, 2 * i + 20] for i in range(5)]
    assert sorted(map(len, calls)) == [1, 10]


def test_a_fault_is_its_own_requests_alone(use: Used, translator: Translator) -> None:
    """Whatever a model raises, in a batch of many, reaches the one client whose text it was."""
    bad = "九" * 7 + "。"

    async def clients(engine: Engine) -> list[Any]:
        run = engine.run("zh-en")
        model = run.predictor.model
        marked = tuple(run.predictor.source_tokenizer.encode(bad))
        encode = model.encode

        def failing(src: Any, mask: Any = None) -> Any:
            if any(tuple(row[: len(marked)]) == marked for row in src.tolist()):
                raise RuntimeError("out of order")
            return encode(src, mask)

        model.encode = failing
        texts = [*TEXTS[:6], bad, *TEXTS[6:9]]
        asked = [engine.translate(run, [text], TranslateOptions(beam=1)) for text in texts]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert engine.is_ready
        items = [engine.batched(run, "x", [i], lambda items: [1 / item for item in items], cost=1) for i in (0, 1, 2)]
        joint = await asyncio.gather(*items, return_exceptions=True)
        assert isinstance(joint[0], ZeroDivisionError) and joint[1:] == [[1.0], [0.5]]
        with pytest.raises(KeyError):
            await engine.call(run, lambda: {}["nothing"], cost=1)
        return found

    found = use(clients)
    assert isinstance(found.pop(6), RuntimeError)
    for each, wanted in zip(found, translator.translate(TEXTS[:9], beam=1), strict=True):
        assert same(each[0], wanted)


def test_options_that_nothing_can_be_made_of_harm_nobody(use: Used) -> None:
    async def client(engine: Engine) -> None:
        run = engine.run("zh-en")
        with pytest.raises(TypeError, match="unhashable"):
            await engine.translate(run, TEXTS[:1], TranslateOptions(prefix=["x"]))  # type: ignore[arg-type]
        assert engine.is_ready and engine.in_system == 0
        assert await engine.translate(run, TEXTS[:1])

    use(client)


def test_options_that_cannot_be_are_told_and_stop_nobody(use: Used) -> None:
    async def client(engine: Engine) -> None:
        run = engine.run("zh-en")
        for options in (TranslateOptions(task="no such"), TranslateOptions(beam=99), TranslateOptions(n_best=0)):
            with pytest.raises(InputError):
                await engine.translate(run, TEXTS[:1], options)
        with pytest.raises(InputError, match="101 characters"):
            await engine.translate(run, ["一" * 101])
        with pytest.raises(InputError, match="3 texts"):
            await engine.translate(run, TEXTS[:3])
        assert await engine.translate(run, []) == []
        with pytest.raises(UnknownRun, match="zh-en"):
            engine.run("en-fr")
        assert engine.in_system == 0

    use(client, max_text_characters=100, max_texts=2)


def test_prompts_and_lengths_are_bounded(use: Used, writer: TextGenerator) -> None:
    async def client(engine: Engine) -> None:
        run = engine.run("writer")
        for prompts, tokens, samples in ([[], 5, 1], [[[]], 5, 1], [["a"], 50, 3], [["a"], 5, 0], [["a"], 5, 99]):
            with pytest.raises(InputError):
                engine.generate(run, prompts, writer.decode_config(max_new_tokens=tokens), samples=samples)
        assert engine.in_system == 0

    use(client, "writer", max_new_tokens=100)


def test_a_request_has_its_time_and_no_more(use: Used) -> None:
    async def client(engine: Engine) -> None:
        run, free = engine.run("zh-en"), threading.Event()
        with pytest.raises(TookTooLong):
            await engine.call(run, free.wait, cost=1)
        assert engine.in_system == 0
        free.set()
        assert await engine.call(run, lambda: 1, cost=1) == 1

    use(client, request_seconds=0.3)


def test_before_and_after_its_life(folder: Path) -> None:
    async def asked(engine: Engine) -> None:
        run = next(iter(engine.runs.values()), None)
        await engine.call(run, lambda: 1, cost=1)  # type: ignore[arg-type]

    engine = Engine(runs_to_serve([str(folder / "zh-en")]), ServeSettings())
    assert engine.is_alive and not engine.is_ready
    with pytest.raises(NotReady):
        asyncio.run(asked(engine))
    engine.start()
    asyncio.run(settled(lambda: engine.is_ready))
    engine.drain()
    assert engine.is_alive and not engine.is_ready
    with pytest.raises(Draining):
        asyncio.run(asked(engine))
    engine.stop()
    with pytest.raises(EngineStopped):
        asyncio.run(asked(engine))


def test_a_run_that_cannot_be_loaded_is_why_it_is_never_ready(tmp_path: Path, folder: Path) -> None:
    engine = Engine([RunToServe("none", str(tmp_path / "none"))], ServeSettings())
    engine.start()
    asyncio.run(settled(lambda: engine.failure is not None))
    assert isinstance(engine.failure, InputError) and not engine.is_alive and not engine.is_ready


def test_a_thread_that_dies_tells_everyone(use: Used) -> None:
    async def client(engine: Engine) -> None:
        run, free = engine.run("zh-en"), threading.Event()
        asked = [asyncio.ensure_future(engine.call(run, free.wait, cost=1))]
        asked += [asyncio.ensure_future(engine.translate(run, [text])) for text in TEXTS[:2]]
        await asyncio.sleep(0)

        def broken() -> None:
            raise MemoryError("no more")

        engine._turn = broken  # type: ignore[method-assign]
        free.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert any(isinstance(each, EngineStopped) for each in found)
        assert all(each is True or isinstance(each, EngineStopped) for each in found)
        assert not engine.is_alive and not engine.is_ready

    use(client)


def test_names_of_runs(folder: Path) -> None:
    first, second = runs_to_serve([str(folder / "zh-en"), f"other={folder / 'zh-en'}"], "float32")
    assert (first.name, second.name, second.run) == ("zh-en", "other", str(folder / "zh-en"))
    with pytest.raises(InputError, match="NAME="):
        runs_to_serve([str(folder / "zh-en")] * 2)
    with pytest.raises(InputError, match="neither a run folder"):
        runs_to_serve([str(folder / "nothing")])

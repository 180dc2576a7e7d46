"""Texts that come and go in a search between steps: whatever their company, they are answered as alone."""

import random

import pytest
from tests.tiny import number_pairs, random_run

import zhuyi
from zhuyi.predict import Translator
from zhuyi.tasks.text_parts import Translation

TEXTS = [source for source, _ in number_pairs(22, digits=(1, 2, 5, 9), seed=4)]
LONG = "".join(source for source, _ in number_pairs(8, digits=(7,), seed=9))


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    return zhuyi.load(random_run(tmp_path_factory.mktemp("run") / "random").path)


@pytest.fixture(scope="module")
def slow(translator: Translator) -> list[str]:
    """Texts whose translations take some steps."""
    return [
        text for text, found in zip(TEXTS, translator.translate(TEXTS, beam=3), strict=True) if len(found.tokens) > 4
    ]


def same(found: Translation, wanted: Translation) -> bool:
    """The same text, or another one with nearly the same score."""
    return found.text == wanted.text or abs(found.score - wanted.score) < 1e-4


@pytest.mark.parametrize(
    "options", [{"beam": 1}, {"beam": 3}, {"beam": 3, "n_best": 2}, {"beam": 3, "batch_tokens": 40}]
)
def test_texts_that_come_at_any_step_are_answered_as_together(translator: Translator, options: dict[str, int]) -> None:
    texts = [*TEXTS, "", "。。。", LONG, f"{TEXTS[0]}\n\n{TEXTS[1]}"]
    search, found, rng = translator.open_search(**options), {}, random.Random(5)
    coming = list(enumerate(texts))
    while coming or search.active:
        for _ in range(rng.randrange(4)):
            if coming:
                search.admit(*coming.pop(rng.randrange(len(coming))))
        found |= dict(search.advance())
    options.pop("batch_tokens", None)
    wanted = translator.translate(texts, **options)  # type: ignore[arg-type]
    assert found.keys() == set(range(len(texts)))
    for i, each in enumerate(wanted):
        assert same(found[i], each), texts[i]
        assert len(found[i].alternatives) == len(each.alternatives)
    assert search.rows == 0


def test_who_leaves_takes_nothing_along(translator: Translator, slow: list[str]) -> None:
    """A text that another one shares goes on; rows that nobody wants are free at once."""
    search = translator.open_search(beam=3)
    for key, text in [("a", slow[0]), ("b", f"{slow[0]}\n{slow[1]}"), ("c", slow[2]), ("d", slow[3])]:
        search.admit(key, text)
    assert search.advance() == []
    assert search.rows == 4 * 3
    search.drop(["a", "c", "nobody"])
    assert (search.rows, search.active) == (3 * 3, 2)
    found = {}
    while search.active:
        found |= dict(search.advance())
    assert found.keys() == {"b", "d"}
    alone = translator.translate([f"{slow[0]}\n{slow[1]}", slow[3]], beam=3)
    assert same(found["b"], alone[0]) and same(found["d"], alone[1])
    search.admit("a", slow[0])  # and may come back
    while search.active:
        found |= dict(search.advance())
    assert same(found["a"], translator.translate([slow[0]], beam=3)[0])


def test_a_text_that_left_before_its_turn_is_never_begun(translator: Translator, slow: list[str]) -> None:
    search = translator.open_search(beam=3)
    search.admit("a", slow[0])
    search.drop(["a"])
    assert search.advance() == [] and search.rows == search.active == 0
    search.admit("empty", "")
    search.drop(["empty"])
    assert search.advance() == []


def test_two_texts_of_one_key_are_refused(translator: Translator, slow: list[str]) -> None:
    search = translator.open_search()
    search.admit("a", slow[0])
    with pytest.raises(ValueError, match="keys must differ"):
        search.admit("a", slow[1])


def test_nobody_waits_for_the_whole_of_a_long_text(translator: Translator) -> None:
    """Where there is room for one sentence at a time, a short text comes second, not last."""
    search = translator.open_search(beam=1, batch_tokens=1)
    sentences = search.admit("long", "\n".join(TEXTS[:8]))
    assert sentences == 8
    search.advance()
    search.admit("short", TEXTS[9])
    ended: list[object] = []
    while search.active:
        ended += [key for key, _ in search.advance()]
        assert search.rows <= 1
    assert ended == ["short", "long"]


def test_one_owner_with_many_texts_takes_turns_too(translator: Translator, slow: list[str]) -> None:
    search, turn = translator.open_search(beam=1, batch_tokens=1), 0
    many, one = slow[1:5], slow[0]
    for number, text in enumerate(many):
        turn += search.admit(number, text, turn=turn)
    ended: list[object] = [key for key, _ in search.advance()]
    search.admit("one", one)
    while search.active:
        ended += [key for key, _ in search.advance()]
    assert "one" in ended[:2]
    assert [key for key in ended if key != "one"] == list(range(len(many)))


def test_a_batch_is_bounded_by_its_tokens(translator: Translator) -> None:
    search = translator.open_search(beam=3, batch_tokens=50)
    longest = max(len(translator.tokenizer.encode(text)) for text in TEXTS)
    for number, text in enumerate(TEXTS):
        search.admit(number, text)
    rows = []
    while search.active:
        search.advance()
        rows.append(search.rows)
    assert 3 < max(rows) <= 3 * (50 // (3 * min(len(translator.tokenizer.encode(text)) for text in TEXTS)))
    assert 3 * longest > 50 // 2  # so that the bound was felt


def test_what_is_longer_than_the_batch_goes_alone(translator: Translator) -> None:
    search = translator.open_search(beam=3, batch_tokens=1)
    search.admit(0, TEXTS[0])
    search.admit(1, TEXTS[1])
    found = {}
    while search.active:
        found |= dict(search.advance())
        assert search.rows <= 3
    assert found.keys() == {0, 1}

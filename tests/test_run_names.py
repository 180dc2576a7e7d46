"""Names of runs: which there are, and what is told of one that is none."""

from pathlib import Path

import pytest

from zhuyi.errors import InputError
from zhuyi.run_folder import find_run
from zhuyi.run_names import check_run_name, of_traditional


def told(name: str) -> str:
    """What is said of it, by who only looks for it and by who reads it: the same."""
    with pytest.raises(InputError) as caught:
        find_run(name)
    for given in (name, f"other={name}"):
        with pytest.raises(InputError) as checked:
            check_run_name(given)
        assert str(checked.value) == str(caught.value)
    return str(caught.value)


def test_nothing_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert told("").startswith("an empty name: neither a run folder nor a shipped model (")
    check_run_name(".")
    assert find_run(Path()).path == Path()


def test_a_name_that_nearly_is_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhuyi.run_names.shipped_models", lambda: ["en-zh", "zh-en"])
    assert told("zh_en").endswith("(en-zh, zh-en); did you mean zh-en?")
    assert told("zh-Hant-en").endswith(
        "; zh is simplified Chinese: ask for that, and convert the text (opencc -c s2t or t2s)"
    )


def test_traditional_chinese_has_its_advice() -> None:
    for code in ("zh-tw", "zh_Hant", "zh-Hant-HK", "zt", "en-zh-tw"):
        assert "zh is simplified Chinese" in of_traditional(code)
    for code in ("zh", "zh-Hans", "zh-en", "runs/zh-twin", "zhtw"):
        assert of_traditional(code) == ""

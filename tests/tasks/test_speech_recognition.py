"""Speech recognition in one process: data, two steps of training, evaluation, transcription, pictures."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import SilentLog

import zhuyi
from zhuyi.config import RunConfig, parse_config
from zhuyi.errors import InputError
from zhuyi.evaluation import Wanted, evaluate_run
from zhuyi.run_folder import RunFolder, named_weights
from zhuyi.tasks import speech_recognition
from zhuyi.tasks.speech_recognition import SpeechRecognitionTask
from zhuyi.tasks.transcripts import Segment, Transcription
from zhuyi.training.automatic import AUTOMATIC, Given
from zhuyi.training.loop import build_model, train
from zhuyi.writing import write_transcriptions

soundfile = pytest.importorskip("soundfile", reason="needs the extra audio")

PITCHES = {"low": 200.0, "middle": 600.0, "high": 1800.0}


def sound(word: str, seed: int) -> np.ndarray:
    """A tone that swells twice, as a word of two syllables does."""
    time = np.arange(5600) / 16000
    tone = np.sin(2 * np.pi * PITCHES[word] * time) * np.abs(np.sin(2 * np.pi * time / 0.35))
    return 0.3 * tone + 0.003 * np.random.default_rng(seed).standard_normal(len(time))


def write_recordings(folder: Path, each: int = 6) -> Path:
    rows = []
    for word in PITCHES:
        for number in range(each):
            soundfile.write(folder / f"{word}_{number}.wav", sound(word, number), 16000)
            rows.append(f"{word}_{number}.wav\t{word}\n")
    (folder / "table.tsv").write_text("".join(rows))
    return folder / "table.tsv"


def config_of(table: Path, data: dict[str, Any] | None = None, **settings: Any) -> RunConfig:
    values = {
        "task": "speech-recognition",
        "model": {
            "name": "whisper", "d_model": 28, "num_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 2,
            "dropout": 0.1, "max_len": 24,
        },
        "data": {
            "train": [str(table)], "valid_names": "_0", "train_names": "_[1-9]", "window_seconds": 1.0,
            "num_mel_bins": 20, "max_len": 24, "tokenizer": {"kind": "character", "vocab_size": 40},
            "augment": {
                "joined": 2, "no_speech": 0.2, "speed": 0.1, "noise": 0.5, "frequency_masks": 1,
                "frequency_mask_bins": 3, "time_masks": 1,
            },
            **(data or {}),
        },
        "train": {
            "max_steps": 4, "batch_tokens": 400, "learning_rate": 3e-3, "schedule": "constant", "warmup_steps": 2,
            "precision": "float32", "eval_every_steps": 2, "save_every_steps": 2, **settings,
        },
        "decode": {"beam": 2},
    }  # fmt: skip
    return parse_config(values, "tiny")


def prepare(config: RunConfig, folder: Path, said: list[str] | None = None) -> SpeechRecognitionTask:
    say = (lambda message: None) if said is None else said.append
    folder.mkdir(exist_ok=True)
    return SpeechRecognitionTask.prepare(config.data, config.decode, folder, config.train.batch_tokens, 1, say)


def test_batches_are_pure_and_learn_text_alone(tmp_path: Path) -> None:
    config = config_of(write_recordings(tmp_path))
    task, again = prepare(config, tmp_path / "run"), prepare(config, tmp_path / "other")
    batches = task.batches("train")
    order = batches.order(3)
    assert [rows.tolist() for rows in order] == [rows.tolist() for rows in again.batches("train").order(3)]
    assert sorted(int(row) % len(batches) for rows in order for row in rows) == list(range(len(batches)))
    assert len(batches) == 15 + 4  # and those without speech
    batch, same = batches.load(order[0]), again.batches("train").load(order[0])
    assert torch.equal(batch.features, same.features) and torch.equal(batch.expected, same.expected)
    assert batch.features.shape[1:] == (20, 100)
    other = batches.load(batches.order(4)[0])
    assert batch.features.shape != other.features.shape or not torch.equal(batch.features, other.features)
    lines = {line.partition("\t")[0] for rows in order for line in batches.lines(rows)}
    assert "(no speech)" in lines and "low_1.wav" in lines
    tokenizer = task._data.tokenizer
    for i in range(len(order[0])):
        learned = batch.expected[i][batch.learned[i]].tolist()
        assert learned[-1] == tokenizer.signs.eos and batch.tgt[i, 0] == tokenizer.signs.bos
        assert batch.tgt[i, 1 : len(learned)].tolist() == learned[:-1]
        assert set(tokenizer.decode(learned).split()) <= PITCHES.keys()
    valid = task.batches("valid").load(np.arange(3))
    assert valid.features.shape == (3, 20, 100)


def test_words_stand_alone_at_first_but_not_in_the_trial_of_memory(tmp_path: Path) -> None:
    augment = {"joined": 2, "joined_epochs": 2, "pause_seconds": [0.0, 0.0]}
    task = prepare(config_of(write_recordings(tmp_path), {"augment": augment}), tmp_path / "run")
    batches, tokenizer = task.batches("train"), task._data.tokenizer

    def most_words(rows: np.ndarray) -> int:
        batch = batches.load(rows)
        pairs = zip(batch.expected, batch.learned, strict=True)
        return max(len(tokenizer.decode(expected[learned].tolist()).split()) for expected, learned in pairs)

    assert [max(map(most_words, batches.order(epoch))) for epoch in range(3)] == [1, 1, 2]
    assert most_words(batches.largest()) == 2


def test_validation_is_held_out_by_name_and_seed(tmp_path: Path) -> None:
    table = write_recordings(tmp_path)
    config = config_of(table, {"valid_names": "", "train_names": "", "valid_share": 0.3})
    task = prepare(config, tmp_path / "run")
    names = [[task._data.train.name(i) for i in range(len(task._data.train))]]
    names.append([task._data.valid.name(i) for i in range(len(task._data.valid))])
    assert sorted(names[0] + names[1]) == sorted(f"{word}_{n}.wav" for word in PITCHES for n in range(6))
    assert 1 <= len(names[1]) <= 10


def test_what_does_not_fit_is_left_out_and_told(tmp_path: Path) -> None:
    table = write_recordings(tmp_path)
    soundfile.write(tmp_path / "long_1.wav", np.zeros(20000), 16000)
    (tmp_path / "bad_1.wav").write_text("no sound")
    with table.open("a") as file:
        file.write("long_1.wav\tlow\nbad_1.wav\tlow\nlow_1.wav\t" + "low " * 10 + "\n")
    said: list[str] = []
    task = prepare(config_of(table), tmp_path / "run", said)
    text = "\n".join(said)
    assert len(task._data.train) == 15
    assert "too long (long_1.wav)" in text and f"not readable as sound ({table}:20)" in text
    assert "1 texts are longer than max_len = 24" in text
    with pytest.raises(InputError, match="all texts are longer"):
        prepare(config_of(table, {"max_len": 4}), tmp_path / "short")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunFolder]:
    base = tmp_path_factory.mktemp("speech")
    table = write_recordings(base)
    folder = RunFolder(base / "run")
    config = config_of(table, {"test": [str(table)], "test_names": "_0"})
    scores = train(config, folder, log=SilentLog(folder))
    assert scores.keys() >= {"valid_loss", "wer", "cer"} and scores["interrupted"] is False
    return base, folder


def test_a_run_is_evaluated_and_used(trained: tuple[Path, RunFolder], capsys: Any) -> None:
    base, folder = trained
    run = zhuyi.load(folder.path)
    scores = evaluate_run(run, Wanted(output=base / "texts"))
    assert scores["recordings"] == 3 and scores["seconds"] == pytest.approx(1.05, abs=0.06)
    assert len((base / "texts").read_text().splitlines()) == 3
    assert evaluate_run(run, Wanted(joined=3))["recordings"] == 1
    with pytest.raises(InputError, match="--alpha"):
        evaluate_run(run, Wanted(alpha=1.0))
    paths = [str(base / f"{word}_0.wav") for word in PITCHES]
    found = run.transcribe([*paths, np.zeros(64000, np.float32)])
    assert len(found) == 4 and found[3].text == "" and found[3].without_speech[0].reason == "silence"
    with pytest.raises(InputError, match="a list"):
        run.transcribe(paths[0])


def test_files_are_written_and_bad_ones_named(trained: tuple[Path, RunFolder]) -> None:
    import io

    base, folder = trained
    run = zhuyi.load(folder.path)
    (base / "bad.wav").write_text("no sound")
    out, said = io.StringIO(), list[str]()
    options: dict[str, Any] = {"beam": 1}
    with pytest.raises(InputError, match="1 of 3 recordings could not be read"):
        sounds = [str(base / name) for name in ("low_0.wav", "bad.wav", "high_0.wav")]
        write_transcriptions(run, sounds, "json", None, out, said.append, options)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [Path(row["file"]).name for row in rows] == ["low_0.wav", "high_0.wav"] and "bad.wav" in said[0]
    (base / "subtitles").mkdir(exist_ok=True)
    (base / "bad.wav").unlink()
    sounds = [str(base / "low_0.wav"), str(base / "high_0.wav")]
    write_transcriptions(run, sounds, "srt", base / "subtitles", out, said.append, options)
    assert sorted(path.name for path in (base / "subtitles").iterdir()) == ["high_0.srt", "low_0.srt"]
    with pytest.raises(InputError, match="cannot share one vtt"):
        write_transcriptions(run, sounds, "vtt", None, out, said.append, options)
    with pytest.raises(InputError, match="choose txt, srt, vtt, json"):
        write_transcriptions(run, sounds, "doc", None, out, said.append, options)


def test_maps_are_of_words_by_sound(trained: tuple[Path, RunFolder], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    from zhuyi.visualize import View, draw

    base, folder = trained
    run = zhuyi.load(folder.path)
    maps = run.attention(base / "low_0.wav", "low")
    assert maps.tokens == ("l", "o", "w", "</s>")
    assert maps.maps["decoder.1.cross"].shape == (2, 4, 18)  # 0.35 seconds
    assert maps.maps["encoder.0.self"].shape == (2, 18, 18)
    draw(run, str(base / "low_0.wav"), tmp_path / "map.png", View(target="low", layer=1))
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="no layer 3"):
        draw(run, str(base / "low_0.wav"), tmp_path / "map.png", View(target="low", layer=3))
    with pytest.raises(InputError, match="nothing to listen to"):
        run.attention(np.zeros(16000, np.float32))


def test_where_it_listens_is_noted_at_each_evaluation(
    trained: tuple[Path, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, folder = trained
    assert all("cross_attention" in row for row in folder.read_samples())
    run = zhuyi.load(folder.path)
    task = SpeechRecognitionTask.prepare(run.config.data, run.config.decode, folder.path, 100, 1, print, begun=True)
    text = task.samples(run.model)[0][2]
    looked = task.cross_attention(run.model)
    maps = run.attention(base / f"{text}_0.wav", text)
    assert (
        looked.target == maps.tokens and looked.source[:3] == ("0.0 s", "0.0 s", "0.0 s") and len(looked.source) == 18
    )
    assert torch.allclose(looked.weights, maps.maps["decoder.1.cross"].mean(dim=0), atol=1e-4)
    monkeypatch.setattr(speech_recognition, "MOST_COLUMNS", 5)
    narrow = task.cross_attention(run.model)
    assert narrow.source == ("0.0 s", "0.1 s", "0.2 s", "0.2 s", "0.3 s")
    assert torch.allclose(narrow.weights[:, 1], looked.weights[:, 4:8].sum(dim=1))


def test_resume_is_exact(tmp_path: Path) -> None:
    table = write_recordings(tmp_path, 3)
    whole, halves = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "halves")
    train(config_of(table), whole, log=SilentLog(whole))
    config = config_of(table)
    train(config_of(table, max_steps=2), halves, log=SilentLog(halves))
    halves.write_config(
        parse_config({**halves.read_config().as_dict(), "train": whole.read_config().as_dict()["train"]}, "more")
    )
    train(config, halves, resume=True, log=SilentLog(halves))
    one, other = whole.read_checkpoint_weights(4), halves.read_checkpoint_weights(4)
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name


def test_a_batch_is_learned_by_heart(tmp_path: Path) -> None:
    config = config_of(write_recordings(tmp_path, 2), {"augment": {}, "train_names": "_1"})
    task = prepare(config, tmp_path / "run")
    values = config.as_dict()
    for section, sizes in task.derived_sizes().items():
        values[section] |= sizes
    values["model"]["dropout"] = 0.0
    model: Any = build_model(parse_config(values, "tiny"))
    batch = task.batches("train").load(np.arange(3))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss, _, count = task.loss(model, batch)
        optimizer.zero_grad()
        (loss / count).backward()
        optimizer.step()
    assert float(loss.detach()) / count < 0.1
    scores = task.evaluate(model.eval())
    assert scores["wer"] == 0  # the validation recordings are of the same tones
    assert named_weights(model).keys() >= {"conv_1.weight"}


def test_sizes_are_chosen_from_the_recordings(tmp_path: Path) -> None:
    table = write_recordings(tmp_path)
    values, reasons = AUTOMATIC["speech-recognition"](Given({"train": [str(table)], "valid": [], "test": []}))
    config = parse_config(values, "made")
    assert config.data.window_seconds == 2.0 and config.data.augment.joined == 5
    assert config.model.d_model == 128 and "18 of 18 recordings kept" in reasons[0]
    assert values == AUTOMATIC["speech-recognition"](Given({"train": [str(table)], "valid": [], "test": []}))[0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train_names": "("}, "no regular expression"),
        ({"text_from_name": "abc"}, "no group"),
        ({"window_seconds": 0}, "window_seconds"),
        ({"valid_share": 1.0}, "valid_share"),
        ({"augment": {"joined": 0}}, "joined"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config_of(Path("nowhere.tsv"), wrong)


class Listening:
    """Hears one word everywhere."""

    def stream(self, sounds: Iterable[np.ndarray]) -> Iterator[Transcription]:
        return (Transcription(1.0, (Segment(0.0, 1.0, f"{len(samples)}"),)) for samples in sounds)


def test_each_recording_has_a_file_of_its_own(tmp_path: Path) -> None:
    import io

    for number, name in enumerate(("x/a.wav", "y/a.wav", "y/a.flac", "b.wav"), 1):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / name, np.zeros(number), 16000)
    transcriber: Any = Listening()

    def write(*sounds: str, output: str = "out") -> None:
        paths = [str(tmp_path / sound) for sound in sounds]
        write_transcriptions(transcriber, paths, "txt", tmp_path / output, io.StringIO(), print, {})

    with pytest.raises(InputError, match="out is no folder, which several recordings need"):
        write("in")
    (tmp_path / "out").mkdir()
    write("in")
    texts = {path.relative_to(tmp_path / "out").as_posix(): path.read_text() for path in tmp_path.glob("out/**/*.txt")}
    assert texts == {"x/a.txt": "1\n", "y/a.wav.txt": "2\n", "y/a.flac.txt": "3\n", "b.txt": "4\n"}
    with pytest.raises(InputError, match=r"x/a\.wav and .*y/a\.wav would both"):
        write("in/x/a.wav", "in/y/a.wav")
    with pytest.raises(InputError, match="there is no folder"):
        write("in/b.wav", output="none/b.txt")
    write("in/b.wav", output="b.txt")
    assert (tmp_path / "b.txt").read_text() == "4\n"

"""Sound of any form becomes the same samples, and these the published spectrogram; what is no sound is refused."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from zhuyi.data.audio import SAMPLE_RATE_HZ, log_mel, mel_filters, read_audio, resampled, windowed
from zhuyi.errors import InputError

soundfile = pytest.importorskip("soundfile", reason="needs the extra audio")
RECORDINGS = Path(__file__).parents[3] / "shared/data/spoken-digits/recordings.tar.gz"


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("a.wav", 8000, 1, "PCM_U8"),
        ("a.wav", 16000, 1, "PCM_16"),
        ("a.wav", 44100, 2, "PCM_24"),
        ("a.wav", 48000, 6, "FLOAT"),
        ("a.flac", 22050, 2, "PCM_24"),
        ("a.ogg", 16000, 1, "VORBIS"),
    ],
)
def test_every_form_is_the_same_sound(name: str, rate: int, channels: int, subtype: str, tmp_path: Path) -> None:
    sound = np.stack([tone(1.0, rate) * (2 * c / (channels + 1)) for c in range(1, channels + 1)], axis=1)
    soundfile.write(tmp_path / name, sound, rate, subtype=subtype)
    found = read_audio(tmp_path / name)
    assert found.dtype == np.float32 and abs(len(found) - SAMPLE_RATE_HZ) <= 1
    inner = slice(1000, 15000)  # where no filter feels the ends
    expected = tone(1.0, SAMPLE_RATE_HZ)[inner]
    assert np.abs(found[inner] - expected).max() < (0.02 if subtype in ("PCM_U8", "VORBIS") else 1e-3)


def test_what_is_no_sound_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with pytest.raises(InputError, match=r"a\.wav: cannot be read"):
        read_audio(path)
    path.write_text("this is a text, and no sound at all\n" * 20)
    with pytest.raises(InputError, match=r"a\.wav: not sound"):
        read_audio(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.wav"):
        read_audio(path)


def test_headers_that_lie_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1.0, 16000), 16000, subtype="PCM_16")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.wav: its header says 32,000 bytes"):
        read_audio(path)
    place = whole.index(b"fmt ") + 8 + 4
    path.write_bytes(whole[:place] + struct.pack("<I", 4_000_000) + whole[place + 4 :])
    with pytest.raises(InputError, match="4,000,000 samples a second"):
        read_audio(path)
    soundfile.write(path, np.array([0.0, np.nan, 0.1] * 100), 16000, subtype="FLOAT")
    with pytest.raises(InputError, match="no finite numbers"):
        read_audio(path)


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0x80000000, 0x7FFFFFDB, 0x7FFFF000])
def test_a_length_that_was_not_known_is_what_there_is(length: int, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1.0, 16000), 16000, subtype="PCM_16")
    whole = path.read_bytes()
    size = whole.index(b"data") + 4
    path.write_bytes(whole[:size] + struct.pack("<I", length) + whole[size + 4 :])
    assert len(read_audio(path)) == len(read_audio("inside", path.read_bytes())) == 16000
    list_chunk = b"LIST" + struct.pack("<I", 4) + b"INFO"
    path.write_bytes(whole[:size] + struct.pack("<I", 0) + list_chunk)  # no sound, and a note behind it
    assert len(read_audio(path)) == 0


@pytest.mark.parametrize("form", ["AIFF", "AU", "W64", "RF64"])
def test_what_was_cut_off_is_refused(form: str, tmp_path: Path) -> None:
    path = tmp_path / "a.sound"
    soundfile.write(path, tone(1.0, 16000), 16000, format=form)
    assert len(read_audio(path)) == 16000
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(InputError, match=r"a\.sound: its header says 32,\d* bytes .* it was cut off"):
        read_audio(path)


def test_mel_filters_cover_every_frequency_with_equal_areas() -> None:
    for bins in (20, 80, 128):
        filters = mel_filters(bins).double()
        assert filters.shape == (201, bins) and bool((filters >= 0).all())
        # Each triangle has the area 1 over frequency; where it is wide, its samples show that.
        wide = filters[:, -5:]
        torch.testing.assert_close(wide.sum(dim=0) * 40.0, torch.ones(5).double(), rtol=0, atol=0.06)


def test_the_spectrogram_is_its_formula() -> None:
    """Slowly, frame by frame, in float64."""
    samples = torch.randn(2, 1600, generator=torch.Generator().manual_seed(0))
    samples[1] *= 1e-3
    found = log_mel(samples, 7)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    for row in range(2):
        padded = np.pad(samples[row].double().numpy(), 200, mode="reflect")
        power = [np.abs(np.fft.rfft(padded[i * 160 : i * 160 + 400] * window)) ** 2 for i in range(10)]
        mel = np.log10(np.maximum(np.array(power) @ mel_filters(7).double().numpy(), 1e-10)).T
        expected = (np.maximum(mel, mel.max() - 8) + 4) / 4
        assert np.abs(found[row].numpy() - expected).max() < 1e-5


def test_windows_are_filled_or_cut() -> None:
    rows = windowed([np.ones(100, np.float32), np.ones(2000, np.float32)], 0.1)
    assert rows.shape == (2, 1600) and float(rows[0].sum()) == 100 and float(rows[1].sum()) == 1600


def test_speed_changes_length_and_pitch() -> None:
    found = resampled(tone(1.0, 16000, 500.0).astype(np.float32), 1.25)
    assert abs(len(found) - 12800) <= 1
    assert np.abs(np.fft.rfft(found)).argmax() * 16000 / len(found) == pytest.approx(625, abs=3)


@pytest.mark.peers
@pytest.mark.skipif(not RECORDINGS.exists(), reason="needs ../shared/data/spoken-digits")
@pytest.mark.parametrize("bins", [80, 128])
def test_real_recordings_as_transformers_has_them(bins: int) -> None:
    import tarfile

    transformers = pytest.importorskip("transformers", reason="needs the extra peers")
    extractor = transformers.WhisperFeatureExtractor(feature_size=bins)
    with tarfile.open(RECORDINGS) as tar:
        members = [member for member in tar.getmembers() if member.isfile()][::500]
        for member in members:
            samples = read_audio(member.name, tar.extractfile(member).read())  # type: ignore[union-attr]
            expected = extractor(samples, sampling_rate=16000, return_tensors="np").input_features[0]
            assert np.abs(log_mel(windowed([samples], 30.0), bins)[0].numpy() - expected).max() < 1e-5

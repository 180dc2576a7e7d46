"""Sound: files of any kind to 16,000 samples a second in one channel, and those to log-mel spectrograms."""

import math
import struct
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from zhuyi.errors import InputError

# Radford et al. 2022, section 2.2: windows of 25 ms, one each 10 ms.
SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
# What libsndfile reads; other files of a folder are passed over.
ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64")
SLOWEST_HZ, FASTEST_HZ = 1_000, 768_000  # of sample rates that can be true
BLOCK_FRAMES = 1 << 20
# A program that does not know yet how long a recording will be writes 0, or some number about the largest that fits 31
# or 32 bits; files of such lengths are as long as they are.
LEAST_UNKNOWN_SIZE = 0x7FFFF000


def read_audio(path: str | Path, content: bytes | None = None, *, max_seconds: float | None = None) -> np.ndarray:
    """A file's sound, its channels averaged.

    Shape:  returns (samples,) float32, mostly within -1 and 1.
    Args:   content: of the file, where it lies inside another; `path` is then what messages call it.
            max_seconds: of what is longer no more than this is unpacked, whatever its header says.
    Raises: InputError: no such file, no sound that can be read, a header that says something else than what follows,
            sound that is too long, or the extra `audio` is not installed.
    """
    soundfile, soxr = _libraries()
    with _opened(path, content) as file:
        try:
            with soundfile.SoundFile(_checked_size(file, path)) as sound:
                _check_header(sound, path)
                rate, expected = sound.samplerate, sound.frames
                blocks = list(_blocks(sound, path, max_seconds))
        except soundfile.LibsndfileError as error:
            raise InputError(
                f"{path}: not sound that can be read ({str(error.error_string).strip()}); give a file in "
                f"{', '.join(ENDINGS)}"
            ) from None
    found = sum(map(len, blocks))
    if found < expected:
        raise InputError(f"{path}: its header says {expected:,} samples, but {found:,} are there; copy it again")
    samples = np.concatenate([np.zeros(0, np.float32), *blocks])
    if not np.isfinite(samples).all():
        raise InputError(f"{path}: holds samples that are no finite numbers; convert it to 16 bits")
    return samples if rate == SAMPLE_RATE_HZ else soxr.resample(samples, rate, SAMPLE_RATE_HZ)


def resampled(samples: np.ndarray, factor: float) -> np.ndarray:
    """The same sound `factor` times as fast, and higher by as much, roughly.

    Shape: samples (N,); returns about (N / factor,).
    """
    soxr: Any = _libraries()[1]
    return soxr.resample(samples, factor, 1.0, quality="LQ")


def check_installed() -> None:
    """Raise InputError where the extra `audio` is not installed."""
    _libraries()


def _libraries() -> tuple[Any, Any]:
    try:
        import soundfile
        import soxr
    except (ImportError, OSError) as error:  # OSError: the library that soundfile calls
        raise InputError(f'reading sound needs the extra audio ({error}): pip install "zhuyi[audio]"') from None
    return soundfile, soxr


def _opened(path: str | Path, content: bytes | None) -> BinaryIO:
    if content is not None:
        return BytesIO(content)
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None


def _check_header(sound: Any, path: str | Path) -> None:
    if not SLOWEST_HZ <= sound.samplerate <= FASTEST_HZ:
        raise InputError(
            f"{path}: its header says {sound.samplerate:,} samples a second; from {SLOWEST_HZ:,} to {FASTEST_HZ:,} "
            "can be true: convert it again from its source"
        )


def _blocks(sound: Any, path: str | Path, max_seconds: float | None) -> Iterator[np.ndarray]:
    """The sound in pieces, its channels averaged. Shape: each (frames,)."""
    left = math.inf if max_seconds is None else max_seconds * sound.samplerate
    frames = max(1, BLOCK_FRAMES // sound.channels)
    while len(block := sound.read(frames, dtype="float32", always_2d=True)):
        left -= len(block)
        if left < 0:
            raise InputError(f"{path}: longer than the {max_seconds:g} s that are taken; cut it into parts")
        yield block.mean(axis=1)


def _checked_size(file: BinaryIO, path: str | Path) -> BinaryIO:
    """The file, unless its header promises more than there is, which libsndfile would read as if it were whole.

    A WAV whose header was written before its sound, with the length 0, comes back with the length that there is.
    """
    head = file.read(28)
    size = file.seek(0, 2)
    declared, place = _declared_end(file, head, size)
    file.seek(0)
    if declared - place >= LEAST_UNKNOWN_SIZE or declared <= size + 1:  # a last byte that fills up may be missing
        if head[:4] != b"RIFF" or declared != place or not _is_sound(file, place, size):
            return file
        content = file.read()
        length = min(size - place, 0xFFFFFFFF)
        return BytesIO(content[: place - 4] + struct.pack("<I", length) + content[place:])
    raise InputError(
        f"{path}: its header says {declared - place:,} bytes of sound, but {size - place:,} are there; "
        "it was cut off: copy it again"
    )


def _declared_end(file: BinaryIO, head: bytes, size: int) -> tuple[int, int]:
    """Where a file's sound should end, or all of the file, and where what is counted begins; zeros if nothing says."""
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        place = 12
        while place + 8 <= size:
            file.seek(place)
            name, length = struct.unpack("<4sI", file.read(8))
            place += 8
            if name == b"data":
                return place + length, place
            place += length + length % 2
    elif head[:4] == b"FORM" and len(head) >= 8:  # AIFF
        return 8 + struct.unpack(">I", head[4:8])[0], 8
    elif head[:4] == b".snd" and len(head) >= 12:  # AU
        place, length = struct.unpack(">II", head[4:12])
        return place + length, place
    elif head[:4] == b"riff" and len(head) >= 24:  # W64
        return struct.unpack("<Q", head[16:24])[0], 0
    elif head[:4] == b"RF64" and head[12:16] == b"ds64" and len(head) == 28:
        return 8 + struct.unpack("<Q", head[20:28])[0], 8
    return 0, 0


def _is_sound(file: BinaryIO, place: int, size: int) -> bool:
    """Whether what follows an empty stretch of sound is the sound, and no other chunks up to the file's end."""
    while place + 8 <= size:
        file.seek(place)
        length = struct.unpack("<4sI", file.read(8))[1]
        place += 8 + length + length % 2
    file.seek(0)
    return place not in (size, size + 1)


def log_mel(samples: Tensor, num_mel_bins: int) -> Tensor:
    """The spectrogram that Whisper reads: log10 of mel energies, at most 8 below a row's largest, about in -1 .. 1.

    Shape:  samples (B, N), N a multiple of 160; returns (B, num_mel_bins, N / 160).
    Source: Radford et al. 2022, section 2.2, and the authors' code: a Hann window, frames centred (their ends are
            filled by reflection), the last frame left out.
    """
    window = torch.hann_window(WINDOW_SAMPLES, device=samples.device)
    spectrum = torch.stft(samples.float(), WINDOW_SAMPLES, HOP_SAMPLES, window=window, return_complex=True)
    spectrum = spectrum[..., :-1]  # (B, 201, frames)
    power = spectrum.real.square() + spectrum.imag.square()
    mel = mel_filters(num_mel_bins).to(samples.device).T @ power  # (B, bins, frames)
    decades = mel.clamp_min(1e-10).log10()
    decades = decades.maximum(decades.amax(dim=(1, 2), keepdim=True) - 8.0)
    return (decades + 4.0) / 4.0


@cache
def mel_filters(num_mel_bins: int) -> Tensor:
    """How much of each frequency belongs to each bin: triangles, of equal area, from 0 to 8,000 Hz.

    Shape:  returns (201, num_mel_bins).
    Source: Slaney 1998, Auditory Toolbox: steps of 200/3 Hz up to 1,000 Hz, then of 6.4 ** (1 / 27).
    """
    frequencies = np.linspace(0, SAMPLE_RATE_HZ / 2, 1 + WINDOW_SAMPLES // 2)  # (201,)
    edges = _hz(np.linspace(_mel(0.0), _mel(SAMPLE_RATE_HZ / 2), num_mel_bins + 2))  # (bins + 2,)
    lower, middle, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies[:, None] - lower) / (middle - lower)  # (201, bins)
    falling = (upper - frequencies[:, None]) / (upper - middle)
    area = 2.0 / (upper - lower)
    return torch.from_numpy(np.maximum(0.0, np.minimum(rising, falling)) * area).float()


_LINEAR_HZ, _BREAK_HZ, _STEP = 200.0 / 3.0, 1000.0, np.log(6.4) / 27.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ


def _mel(hz: float) -> float:
    return hz / _LINEAR_HZ if hz < _BREAK_HZ else float(_BREAK_MEL + np.log(hz / _BREAK_HZ) / _STEP)


def _hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ, _BREAK_HZ * np.exp(_STEP * (mel - _BREAK_MEL)))


def windowed(pieces: list[np.ndarray], seconds: float) -> Tensor:
    """Stretches of sound side by side, each filled up with silence to a window, or cut to it.

    Shape: pieces of (samples,); returns (B, seconds * 16,000).
    """
    length = round(seconds * SAMPLE_RATE_HZ)
    rows = np.zeros((len(pieces), length), np.float32)
    for row, piece in zip(rows, pieces, strict=True):
        row[: min(length, len(piece))] = piece[:length]
    return torch.from_numpy(rows)

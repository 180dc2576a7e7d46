"""How uploads are unpacked."""

import asyncio
import threading
import time
from io import BytesIO

import numpy as np
import pytest
from fastapi import UploadFile

from zhuyi.data.images import Shape
from zhuyi.serving import uploads
from zhuyi.serving.settings import ServeSettings


def test_two_pictures_are_unpacked_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("PIL.Image")
    lock, at_once, most = threading.Lock(), 0, 0

    def open_slowly(*_: object, **__: object) -> object:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.05)
        with lock:
            at_once -= 1
        return library.new("RGB", (90, 60), "red")

    async def read_six() -> list[np.ndarray]:
        files = [UploadFile(BytesIO(b"x"), filename="x.png") for _ in range(6)]
        shape = Shape(8, 3)
        return await asyncio.gather(*(uploads.read_picture(file, ServeSettings(), shape) for file in files))

    monkeypatch.setattr(uploads, "open_picture", open_slowly)
    found = asyncio.run(read_six())
    assert most <= 2
    assert [pixels.shape for pixels in found] == [(8, 8, 3)] * 6  # what waits for the engine is small

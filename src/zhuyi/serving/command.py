"""`zhuyi serve`: from runs and settings to a server that answers until it is told to end."""

import logging
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from zhuyi.serving.app import create_app
from zhuyi.serving.engine import Engine
from zhuyi.serving.listening import address_of, http_config, listening_socket
from zhuyi.serving.runs import RunToServe
from zhuyi.serving.settings import ServeSettings


class DrainingServer(uvicorn.Server):
    """A server that ends when its engine cannot work, and lets requests finish when it is told to end."""

    def __init__(self, config: uvicorn.Config, engine: Engine, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._engine, self._say = engine, say
        self._said: set[str] = set()

    async def on_tick(self, counter: int) -> bool:
        for name, run in self._engine.runs.items():
            if name not in self._said:
                self._said.add(name)
                languages = f", {run.source} to {run.target}" if run.source and run.target else ""
                self._say(f"serving {name}: {run.task}{languages}, in {run.predictor.precision}")
        self.should_exit = self.should_exit or not self._engine.is_alive
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._engine.drain()
        super().handle_exit(sig, frame)


def serve(runs: Sequence[RunToServe], settings: ServeSettings, say: Callable[[str], None]) -> None:
    """Serve until a signal: then take no more requests, finish those that run, and return.

    The address goes to standard output, as soon as it can be asked; all else to standard error.

    Raises: InputError: an address that cannot be listened on, keys that cannot be read, a run that cannot be loaded.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    engine = Engine(runs, settings)
    config = http_config(create_app(engine, settings), settings)
    with listening_socket(settings) as sockets:
        if not settings.is_loopback and settings.api_keys is None:
            say(f"warning: anyone who reaches {settings.host} may use this server: there are no keys")
        print(address_of(sockets), flush=True)
        # uvicorn raises it once more in the end: a server that has drained is no failure.
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        DrainingServer(config, engine, say).run(sockets=[sockets])
        signal.signal(signal.SIGTERM, before)
    if engine.failure is not None:
        raise engine.failure

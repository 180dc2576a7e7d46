"""Where a server listens, and how long it lets its connections wait."""

import socket

import uvicorn
from fastapi import FastAPI

from zhuyi.errors import InputError
from zhuyi.serving.connections import TimedProtocol
from zhuyi.serving.settings import ServeSettings

KEEP_ALIVE_SECONDS = 15


def http_config(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """What uvicorn is told of an application, which keeps the settings as `state.settings`."""
    return uvicorn.Config(
        app,
        http=TimedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # anyone could say to come from anywhere
        server_header=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )


def listening_socket(settings: ServeSettings) -> socket.socket:
    """A socket that listens at the settings' address.

    Raises: InputError: nothing can listen there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"host {settings.host}: no address of this machine: {error.strerror or error}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()  # who is told the address may ask at once
    except OSError as error:
        listening.close()
        raise InputError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; choose another --port"
        ) from None
    return listening


def address_of(listening: socket.socket) -> str:
    """What a browser is to open."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"

"""Put runs to work for others."""

from pathlib import Path
from typing import Annotated

import typer

from zhuyi.cli.options import checked, say
from zhuyi.errors import InputError


def serve(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="Runs' folders or shipped models; NAME=RUN names one.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 127.0.0.1 is this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of all runs: float32, bfloat16, int8 or auto; where not given auto for translation, else float32."
        ),
    ] = None,
    api_keys: Annotated[Path | None, typer.Option(help="A file of hashed keys; without one of them no answer.")] = None,
    make_key: Annotated[
        str, typer.Option(metavar="NAME", help="Make a key, print it, keep its hash in --api-keys, and end.")
    ] = "",
    open_to_all: Annotated[
        bool, typer.Option("--open-to-all", help="Let other machines in though there are no keys.")
    ] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that the server is asked by, besides --host; several times.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="A site whose pages may use this server, https://a.example; several times.")
    ] = None,
    requests_per_minute: Annotated[int, typer.Option(min=0, help="Of each key or address; 0: any number.")] = 0,
    queue_size: Annotated[int, typer.Option(min=1, help="Requests that wait or run; for more: come again.")] = 256,
    max_connections: Annotated[int, typer.Option(min=1, help="Connections at once.")] = 512,
    max_body_mib: Annotated[int, typer.Option(min=1, help="Of a request, uploads included, in MiB.")] = 16,
    max_characters: Annotated[int, typer.Option(min=1, help="Of all texts of a request together.")] = 100_000,
    max_texts: Annotated[int, typer.Option(min=1, help="Of a request.")] = 256,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="That a request may have written in all.")] = 4096,
    max_beam: Annotated[int, typer.Option(min=1, help="Hypotheses, or continuations of a prompt.")] = 16,
    max_audio_seconds: Annotated[float, typer.Option(min=1, help="Of a recording.")] = 600.0,
    max_picture_pixels: Annotated[int, typer.Option(min=1, help="Of a picture.")] = 40_000_000,
    request_seconds: Annotated[float, typer.Option(min=0.1, help="After which a request is given up.")] = 120.0,
    read_seconds: Annotated[float, typer.Option(min=0.1, help="How long a client may let the server wait.")] = 20.0,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Source tokens, times hypotheses, in a batch.")] = 16384,
    batch_wait_ms: Annotated[
        float, typer.Option(min=0, help="How long a request waits for others while a batch is running.")
    ] = 10.0,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="For running requests, when the server is to end.")
    ] = 30.0,
) -> None:
    """Serve runs over HTTP, and a page to use them. SIGTERM or Ctrl-C ends it once running requests are done."""
    from zhuyi.run_names import check_run_name
    from zhuyi.serving.settings import MEBIBYTE, ServeSettings

    if make_key:
        from zhuyi.serving.keys import make_key as make

        if api_keys is None:
            raise InputError("--make-key needs a file for the key's hash: give --api-keys FILE")
        typer.echo(make(api_keys, make_key))
        return
    if not runs:
        raise InputError("there is nothing to serve: give a run's folder, or the name of a shipped model")
    for run in runs:  # before torch is imported, which takes a while where others use the machine
        check_run_name(run)
    settings = checked(
        lambda: ServeSettings(
            host=host,
            port=port,
            api_keys=api_keys,
            open_to_all=open_to_all,
            allowed_hosts=tuple(allow_host or ()),
            allowed_origins=tuple(allow_origin or ()),
            requests_per_minute=requests_per_minute,
            queue_size=queue_size,
            max_connections=max_connections,
            max_body_bytes=max_body_mib * MEBIBYTE,
            max_texts=max_texts,
            max_text_characters=max_characters,
            max_new_tokens=max_new_tokens,
            max_beam=max_beam,
            max_audio_seconds=max_audio_seconds,
            max_picture_pixels=max_picture_pixels,
            request_seconds=request_seconds,
            read_seconds=read_seconds,
            batch_tokens=batch_tokens,
            batch_wait_seconds=batch_wait_ms / 1000,
            drain_seconds=drain_seconds,
        )
    )
    try:
        from zhuyi.serving.command import serve as serve_runs
        from zhuyi.serving.runs import runs_to_serve
    except ModuleNotFoundError as error:
        raise InputError(f"serving needs the extra `serve` ({error}): pip install 'zhuyi[serve]'") from None
    serve_runs(runs_to_serve(runs, precision), settings, say)

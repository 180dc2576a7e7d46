"""Watch trainings."""

from pathlib import Path
from typing import Annotated

import typer

from zhuyi.atomic import check_file
from zhuyi.cli.options import checked, no_stream, say
from zhuyi.errors import InputError


def watch(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or of several runs each.")],
    host: Annotated[str, typer.Option(help="The address to listen on; 127.0.0.1 is this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8001,
    export: Annotated[
        Path | None, typer.Option(help="Write one HTML file that opens offline, in place of serving.")
    ] = None,
) -> None:
    """Follow trainings on a page. Curves, what the models write, where they look."""
    from zhuyi.run_names import check_folder

    for path in runs:  # before torch is imported
        check_folder(path)
    from zhuyi.serving.watched_runs import Watch, write_watch_page

    watched = Watch(runs)
    if export:
        check_file(no_stream(export, "--export", "a page goes to a file"))
        write_watch_page(watched, export)
        typer.echo(str(export))
        return
    try:
        from zhuyi.serving.settings import ServeSettings
        from zhuyi.serving.watch_app import serve_watch
    except ModuleNotFoundError as error:
        raise InputError(
            f"serving a page needs the extra `serve` ({error}): pip install 'zhuyi[serve]'; --export FILE does not"
        ) from None
    settings = checked(lambda: ServeSettings(host=host, port=port, open_to_all=True, drain_seconds=1.0))
    if not settings.is_loopback:
        say(f"warning: anyone who reaches {host} can read the runs' curves and samples")
    serve_watch(watched, settings)

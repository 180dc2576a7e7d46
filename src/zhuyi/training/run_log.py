"""What a training tells: a progress bar and lines for the person, `metrics.jsonl` and curves for the folder."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from zhuyi.config import TrainConfig
from zhuyi.errors import InputError
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.cross_attention import CrossAttention

SMOOTHING = 0.98  # of the shown loss and speed, a step
LONGEST_SAMPLE = 600  # characters of a text that are noted
SECONDS_A_LINE = 30  # where there is no terminal to draw a bar on


class RunLog:
    """All output of a training goes through here, to standard error and to the run folder."""

    def __init__(self, folder: RunFolder, *, quiet: bool = False) -> None:
        self._folder = folder
        self._console = Console(stderr=True, quiet=quiet)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            disable=quiet,
        )
        self._row = self._bar.add_task("train", total=None, numbers="", left="", visible=False)
        self._writer: Any = _tensorboard(folder) if not quiet else None
        self._settings = TrainConfig(max_steps=1)
        self._shown_loss: float | None = None
        self._speed: float | None = None
        self._score = ""
        self._minutes_before = 0.0
        self._last = self._started = self._last_line = time.monotonic()

    def start(self, step: int, settings: TrainConfig, minutes: float) -> None:
        self._settings = settings
        self._minutes_before = minutes
        self._last = self._started = time.monotonic()
        self._bar.update(self._row, visible=True)
        if self._console.is_terminal:
            self._bar.start()

    def step(self, step: int, epoch: int, loss: float, rate: float, tokens: int) -> None:
        """Note one step; `loss` is the mean negative log-likelihood of its `tokens`."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        self._shown_loss = _smooth(self._shown_loss, loss)
        self._speed = _smooth(self._speed, tokens / max(seconds, 1e-9))
        self._show(step, epoch, rate)

    def evaluation(
        self,
        measured: dict[str, Any],
        scores: dict[str, Any],
        samples: list[tuple[str, str, str]],
        looked: CrossAttention | None = None,
    ) -> None:
        """Note what the steps since the last evaluation measured and the scores, and show what the model now writes.

        Args:   samples: sources, what is written of them, and what should be.
                looked: where the model looks in one source.
        """
        row, step = {**measured, **scores}, measured["step"]
        self._folder.append_metrics(row)
        self._folder.append_samples(_noted(step, samples, looked))
        self._score = "  ".join(f"{key} {_short(value)}" for key, value in scores.items())
        self.say(f"step {step:,}  {self._score}")
        for source, found, reference in samples:
            self.say(f"  {source}\n  → {found}\n  = {reference}")
        if self._writer is not None:
            for key, value in row.items():
                self._writer.add_scalar(key, value, step)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Time spent here is no training time."""
        yield
        self._last = time.monotonic()

    def finish(self, step: int, scores: dict[str, Any]) -> None:
        self.draw_curves()
        self.say("Final weights: " + "  ".join(f"{key} {_short(value)}" for key, value in scores.items()))

    def draw_curves(self) -> None:
        """Draw the folder's metrics, where the extra `plot` is installed."""
        from zhuyi.visualize.curves import draw_curves

        with contextlib.suppress(InputError):
            draw_curves(self._folder.read_metrics(), self._folder.path / "curves.png")

    def say(self, message: str) -> None:
        self._console.print(escape(message), highlight=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        self._console.print(f"[yellow]warning:[/] {escape(message)}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def _show(self, step: int, epoch: int, rate: float) -> None:
        spent = 60 * self._minutes_before + time.monotonic() - self._started
        done = self._settings.share_done(step, epoch, spent / 60)
        left = spent * (1 - done) / done if done > 0 else 0.0
        numbers = f"loss {self._shown_loss:.3f}  rate {rate:.1e}  {self._speed:,.0f} tokens/s"
        if self._score:
            numbers += f"  {self._score}"
        if not self._console.is_terminal:  # a log file has no bar: a line now and then
            if time.monotonic() - self._last_line >= SECONDS_A_LINE:
                self._last_line = time.monotonic()
                self.say(f"step {step:,} epoch {epoch + 1}  {numbers}  {_clock(left)} left")
            return
        self._bar.update(
            self._row,
            total=1.0,
            completed=done,
            description=f"step {step:,} epoch {epoch + 1}",
            numbers=numbers,
            left=f"{_clock(left)} left" if done > 0 else "",
        )


def _noted(step: int, samples: list[tuple[str, str, str]], looked: CrossAttention | None) -> dict[str, Any]:
    """A line of `samples.jsonl`."""
    texts = [
        {name: _cut(text) for name, text in zip(("source", "text", "reference"), each, strict=True)} for each in samples
    ]
    return {"step": step, "samples": texts, **({"cross_attention": looked.as_values()} if looked else {})}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SAMPLE else text[: LONGEST_SAMPLE - 1] + "…"


def _tensorboard(folder: RunFolder) -> Any:
    """A writer into the run folder, where the extra `log` is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder.path / "tensorboard"))


def _smooth(before: float | None, now: float) -> float:
    return now if before is None else SMOOTHING * before + (1 - SMOOTHING) * now


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

"""One file a task: its data, batches, loss and scores. `TASKS` says which names a config may use."""

from dataclasses import dataclass
from typing import Any

from zhuyi.tasks.pair_data import PairDataConfig
from zhuyi.tasks.translation import TranslationTask


@dataclass(frozen=True)
class TaskType:
    """A task's data config and its class."""

    data: type[Any]
    task: type[Any]


TASKS: dict[str, TaskType] = {
    "translation": TaskType(PairDataConfig, TranslationTask),
}

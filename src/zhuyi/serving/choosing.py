"""Which run a request is for."""

from zhuyi.errors import InputError
from zhuyi.serving.engine import Engine
from zhuyi.serving.refusals import NotReady
from zhuyi.serving.runs import ServedRun


def loaded(engine: Engine) -> list[ServedRun]:
    """All runs, in the order of the command line.

    Raises: NotReady: not all are loaded.
    """
    if not engine.is_ready and len(engine.runs) < len(engine.wanted):
        raise NotReady
    return list(engine.runs.values())


def chosen(engine: Engine, name: str, *abilities: str, task: str = "") -> ServedRun:
    """The run of a name that can do one of these things, if any are named; without a name the first that can.

    Args:   task: of what the run must be, where runs of several tasks have the ability.
    Raises: NotReady: not all runs are loaded. UnknownRun: there is none of the name. InputError: it cannot do that.
    """
    runs = [engine.run(name)] if name in engine.runs else loaded(engine)
    able = _able(runs, abilities, task)
    if not name and able:
        return able[0]
    what = " or ".join(abilities) + (f" in the way of {task}" if task else "")
    if not name:
        raise InputError(f"no run here can {what}")
    run = engine.run(name)
    if run not in able:
        others = [other.name for other in _able(list(engine.runs.values()), abilities, task)]
        advice = f"choose {' or '.join(others)}" if others else "and no other run here can"
        raise InputError(f"{run.name} is a run of {run.task}, which cannot {what}; {advice}")
    return run


def _able(runs: list[ServedRun], abilities: tuple[str, ...], task: str) -> list[ServedRun]:
    able = [run for run in runs if not abilities or set(abilities) & set(run.abilities)]
    return [run for run in able if not task or run.task == task]

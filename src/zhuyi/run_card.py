"""What a run is, in words: its card, or what its config and metrics tell."""

from zhuyi.run_folder import RunFolder, find_run
from zhuyi.run_names import shipped_models


def describe_run(name: str) -> str:
    """The run's card; for a run without one, its task, sizes and last scores."""
    folder = find_run(name)
    if folder.card_path.exists():
        card = folder.card_path.read_text(encoding="utf-8", errors="replace").rstrip()
        # A stranger's card may not steer the terminal.
        return "".join(char for char in card if char.isprintable() or char == "\n")
    return "\n".join(f"{key:12} {value}" for key, value in _facts(folder).items())


def list_models() -> str:
    """The shipped models, a line each with the first line of their cards."""
    lines = []
    for name in shipped_models():
        title = (find_run(name).card_path.read_text(encoding="utf-8").splitlines() or [""])[0].lstrip("# ")
        lines.append(f"{name:8} {title.removeprefix(name + ':').strip()}")
    return "\n".join(lines) or "no model is shipped with this installation"


def _facts(folder: RunFolder) -> dict[str, str]:
    config = folder.read_config()
    facts = {
        "run": str(folder.path),
        "task": config.task,
        "model": ", ".join(f"{key} {value}" for key, value in config.as_dict()["model"].items()),
        "data": config.data.describe(),
    }
    if folder.weights_path.exists():
        parameters = sum(weight.numel() for weight in folder.read_weights().values())
        facts["parameters"] = f"{parameters:,}"
    if metrics := folder.read_metrics():
        facts["last scores"] = ", ".join(f"{key} {value}" for key, value in metrics[-1].items())
    return facts

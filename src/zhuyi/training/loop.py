"""The training loop, told in the order in which things happen."""

import contextlib
import copy
import dataclasses
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from zhuyi.config import RunConfig, TrainConfig, parse_config
from zhuyi.errors import InputError
from zhuyi.machine import choose_precision, give_back_freed_memory, keep_freed_memory, peak_memory_gib
from zhuyi.metrics import LOWER_IS_BETTER
from zhuyi.models import MODELS
from zhuyi.nn.lora import adapt, merged
from zhuyi.run_folder import Checkpoint, RunFolder, find_run, named_weights, set_weights
from zhuyi.tasks import TASKS
from zhuyi.tasks.cross_attention import CrossAttention
from zhuyi.training.averaging import best_first, kept_steps, publish_average
from zhuyi.training.beginning import described, take_sensors, take_tokenizers, take_weights
from zhuyi.training.optimizers import MasterAdam
from zhuyi.training.processes import Processes
from zhuyi.training.run_log import RunLog
from zhuyi.training.schedules import learning_rate
from zhuyi.training.sharding import gather, shard
from zhuyi.training.signals import SignalsNoted

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
PLATEAU_DECAY = 0.5


@dataclass
class Progress:
    """Where training stands; with the weights and the optimizer, all that a resumed run needs.

    Args:   epoch, batch: the next micro-batch to read.
            micro_batches: a step takes so many, over all processes.
            loss_sum, tokens, seconds: negative log-likelihood, target tokens and duration of the steps since the last
            evaluation.
            evaluations: [step, score, validation loss] of each, the score such that more is better.
            anew: weights that were not taken over from the run that this one began with.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    micro_batches: int = 0
    minutes: float = 0.0
    plateau_factor: float = 1.0
    nonfinite: int = 0
    loss_sum: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    evaluations: list[list[float]] = field(default_factory=list)
    anew: list[str] = field(default_factory=list)

    @property
    def since_best(self) -> int:
        """Evaluations after the best one."""
        steps = [row[0] for row in reversed(self.evaluations)]
        return steps.index(best_first(self.evaluations)[0]) if steps else 0


def train(config: RunConfig, folder: RunFolder, *, resume: bool = False, log: RunLog | None = None) -> dict[str, Any]:
    """Train a run to its limits and leave the best or averaged weights in its folder.

    Args:   resume: go on from the newest complete checkpoint, or start over where there is none.
    Returns: the validation scores of the weights left in the folder, and `interrupted`: whether a signal ended it.
    Raises: InputError: the folder holds a run and `resume` is not set, or the data or config is unusable.
    """
    there = folder.entries()
    processes = Processes()
    log = log or RunLog(folder, quiet=not processes.is_first)
    try:
        folder.check_trainable(resume=resume)
        is_new = not folder.config_path.exists()
        try:
            training = _Training(config, folder, processes, log)
            training.try_largest_batch()
        except Exception:
            if is_new and processes.is_first:
                folder.remove_beginning(there)
            raise
        return training.run()
    finally:
        log.close()


class _Training:
    def __init__(self, config: RunConfig, folder: RunFolder, processes: Processes, log: RunLog) -> None:
        self.folder, self.processes, self.log = folder, processes, log
        config = self._claim(config)
        _set_machine(config.train)
        self.task, self.config = self._prepare(config)
        self.settings = self.config.train
        self.is_sharded = self.settings.sharding == "full" and processes.count > 1
        steps = folder.checkpoint_steps()
        checkpoint = folder.read_checkpoint(steps[-1]) if steps else None
        self.progress = self._progress(checkpoint)
        # What does not fit one device is put together in the machine's memory, and moved as it is cut into shards.
        self.model = build_model(self.config, "cpu" if self.is_sharded else processes.device)
        if self.settings.lora.rank and not checkpoint:
            self._set_weights(None)
        self._adapt()
        if not self.settings.lora.rank or checkpoint:
            self._set_weights(checkpoint)
        self.own_loss, self.loss, self.optimizer = self._distribute()
        if checkpoint:
            self.optimizer.load(checkpoint.optimizer)
        self.batches = self.task.batches("train")
        self.interrupted = False

    def run(self) -> dict[str, Any]:
        self.log.start(self.progress.step, self.settings, self.progress.minutes)
        started = time.monotonic() - 60 * self.progress.minutes
        with SignalsNoted() as signals:
            if self._evaluation_is_due():  # a signal came before it in the last life
                self._evaluate()
                self._save()
            micro_batches = self._micro_batches()
            while not (self._limit_reached() or self.interrupted):
                self._step(micro_batches)
                self._agree(signals, started)
                evaluate_now = self._evaluation_is_due() and not self.interrupted
                if evaluate_now:
                    self._evaluate()
                    self._agree(signals, started)
                if evaluate_now or self.interrupted or self.progress.step % self.settings.save_every_steps == 0:
                    self._save()
        if self.interrupted:
            self.log.say(
                f"Stopped at step {self.progress.step:,}; go on with: zhuyi train --resume --out {self.folder.path}"
            )
            return {"interrupted": True}
        return {**self._finish(), "interrupted": False}

    def _step(self, micro_batches: Iterator[np.ndarray]) -> None:
        """One move of the weights, by the gradients of `micro_batches` batches over all processes."""
        progress, processes = self.progress, self.processes
        started = time.monotonic()
        progress.step += 1
        sums = torch.zeros(3, dtype=torch.float64)  # loss, negative log-likelihood, tokens
        mine: list[np.ndarray] = []
        for i in range(progress.micro_batches):
            rows = next(micro_batches)
            if i % processes.count != processes.rank:
                continue
            seed_step(self.settings.seed, progress.step, i)
            batch = self.batches.load(rows).to(processes.device)
            mine.append(rows)
            last = i + processes.count >= progress.micro_batches
            with processes.gradients_shared(self.loss, last):
                loss, nll, count = self.loss(batch)
                loss.backward()
            if not last:
                self.optimizer.add_gradients()
            sums += torch.tensor([float(loss.detach()), float(nll), count], dtype=torch.float64)
        processes.sum(sums)
        rate = self._learning_rate()
        # The processes' gradients were averaged; the loss is a sum over all their tokens.
        factor = processes.count / max(1.0, float(sums[2]))
        loss_is_finite = math.isfinite(float(sums[0]))
        norm = self.optimizer.step(rate, factor, self.settings.clip_norm, move=loss_is_finite)
        if loss_is_finite and math.isfinite(norm):
            progress.nonfinite = 0
            progress.loss_sum += float(sums[1])
            progress.tokens += int(sums[2])
            self.log.step(progress.step, progress.epoch, float(sums[1] / sums[2]), rate, int(sums[2]))
        else:
            self._note_nonfinite(mine, float(sums[0] / sums[2]), norm)
        progress.seconds += time.monotonic() - started

    def _learning_rate(self) -> float:
        progress = self.progress
        return learning_rate(self.settings, progress.step, self.config.model.d_model, progress.plateau_factor)

    def _micro_batches(self) -> Iterator[np.ndarray]:
        """The endless stream of batches, epoch after epoch, from where `progress` stands."""
        progress = self.progress
        while True:
            order = self.batches.order(progress.epoch)
            for rows in order[progress.batch :]:
                progress.batch += 1
                if progress.batch == len(order):  # at once: an epoch's last batch ends it, not the next one's first
                    progress.epoch, progress.batch = progress.epoch + 1, 0
                yield rows

    def _limit_reached(self) -> bool:
        progress, settings = self.progress, self.settings
        reached = [
            settings.max_steps and progress.step >= settings.max_steps,
            settings.max_epochs and progress.epoch >= settings.max_epochs,
            settings.max_minutes and progress.minutes >= settings.max_minutes,
            settings.patience and progress.since_best >= settings.patience,
        ]
        return any(reached)

    def _evaluation_is_due(self) -> bool:
        progress = self.progress
        done = progress.step == 0 or (progress.evaluations and progress.evaluations[-1][0] == progress.step)
        return not done and (progress.step % self.settings.eval_every_steps == 0 or self._limit_reached())

    def _agree(self, signals: SignalsNoted, started: float) -> None:
        """All processes stop at the same step, on any one's signal and on the first one's clock."""
        first = (time.monotonic() - started) / 60 if self.processes.is_first else 0.0
        shared = self.processes.sum(torch.tensor([float(signals.noted), first], dtype=torch.float64))
        self.interrupted = bool(shared[0])
        self.progress.minutes = float(shared[1])

    def _evaluate(self) -> None:
        progress = self.progress
        found = torch.zeros(2, dtype=torch.float64)
        model = self._whole_model()
        if self.processes.is_first:
            scores = self._scores(model)
            found += torch.tensor([self._monitored(scores), scores["valid_loss"]], dtype=torch.float64)
            measured = {
                "step": progress.step,
                "minutes": round(progress.minutes, 3),
                "train_loss": progress.loss_sum / max(1, progress.tokens),
                "learning_rate": self._learning_rate(),
                "tokens_per_second": round(progress.tokens / max(progress.seconds, 1e-9), 1),
            }
            self.log.evaluation(measured, scores, *self._look(model))
        progress.loss_sum, progress.tokens, progress.seconds = 0.0, 0, 0.0
        progress.evaluations.append([progress.step, *self.processes.sum(found).tolist()])
        if self.settings.schedule == "plateau" and progress.since_best:
            progress.plateau_factor *= PLATEAU_DECAY
        give_back_freed_memory()

    def _scores(self, model: nn.Module) -> dict[str, Any]:
        with self._evaluating(model):
            return self.task.evaluate(model)

    def _look(self, model: nn.Module) -> tuple[list[tuple[str, str, str]], CrossAttention | None]:
        """What the model now writes, and where it looks meanwhile, if its task can tell."""
        with self._evaluating(model):
            looks = hasattr(self.task, "cross_attention")
            return self.task.samples(model), self.task.cross_attention(model) if looks else None

    @contextlib.contextmanager
    def _evaluating(self, model: nn.Module) -> Iterator[None]:
        model.eval()
        with self.log.evaluating():
            yield
        model.train()

    def _whole_model(self) -> nn.Module:
        """The model as the first process can use it alone; all processes must ask for it."""
        if not self.is_sharded:
            return self.model
        weights = gather(named_weights(self.model), self.processes)
        if not self.processes.is_first:
            return self.model
        model = build_model(self.config, self.processes.device)
        set_weights(model, weights, self.folder.path)
        return model

    def _monitored(self, scores: dict[str, Any]) -> float:
        """The score that is watched, such that more is better."""
        name = "valid_loss" if self.settings.monitor == "loss" else self.settings.monitor
        return -scores[name] if name in LOWER_IS_BETTER else scores[name]

    def _save(self) -> None:
        """A checkpoint, then the best weights so far for the user, then away with what nobody needs."""
        weights = gather(named_weights(self.model), self.processes)
        moments = gather(self.optimizer.state(), self.processes)
        if self.processes.is_first:
            folder, progress = self.folder, self.progress
            folder.write_checkpoint(Checkpoint(weights, moments, dataclasses.asdict(progress)))
            if progress.evaluations and progress.evaluations[-1][0] == progress.step:
                best = folder.read_checkpoint_weights(best_first(progress.evaluations)[0])
                folder.write_weights(merged(best, self.settings.lora))
                self.log.draw_curves()
            folder.thin_checkpoints(kept_steps(progress.evaluations, self.settings))
        self.processes.wait()

    def _finish(self) -> dict[str, Any]:
        """Average, keep whichever is better, and score what is kept."""
        scores: dict[str, Any] = {}
        model = self._whole_model()
        if self.processes.is_first:
            scores = publish_average(
                self.folder, model, self.progress.evaluations, self.settings, self._scores, self._monitored
            )
            self.log.finish(self.progress.step, scores)
        self.processes.wait()
        return scores

    def _claim(self, config: RunConfig) -> RunConfig:
        """The folder's own config; a new folder gets it first of all, so that --resume finds it after any kill."""
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.processes.wait()  # lest one process find another's config and think the folder in use
        if self.processes.is_first and not self.folder.config_path.exists():
            self.folder.write_config(config)
        self.processes.wait()
        return self.folder.read_config()

    def _prepare(self, config: RunConfig) -> tuple[Any, RunConfig]:
        """Tokenizers, data and the sizes that follow from them; written to the folder once they are known."""
        make = TASKS[config.task].task.prepare
        settings = config.train
        arguments = (
            config.decode,
            self.folder.path,
            settings.batch_tokens,
            settings.seed,
            self.log.say,
        )
        if not self.processes.is_first:
            self.processes.wait()  # the first process makes the files, the others open them
        begun = bool(self.folder.checkpoint_steps()) or not self.processes.is_first
        if settings.init and not begun:
            other = find_run(settings.init)
            take_tokenizers(other, self.folder)
            config = take_sensors(config, other)
        task = make(config.data, *arguments, begun=begun)
        if self.processes.is_first:
            self.processes.wait()
        resolved = resolve(config, task.derived_sizes(), self.processes.device)
        if self.processes.is_first and resolved != config:
            self.folder.write_config(resolved)
        self.processes.wait()
        return task, resolved

    def _progress(self, checkpoint: Checkpoint | None) -> Progress:
        """Where to go on, or begin; the metrics know of no evaluation that is not noted there."""
        progress = Progress(micro_batches=self.settings.accumulation * self.processes.count)
        if checkpoint:
            progress = Progress(**checkpoint.progress)
            self._check_shares(progress.micro_batches)
            self.log.say(f"Resuming after step {progress.step:,}.")
        if self.processes.is_first:
            self.folder.thin_checkpoints(kept_steps(progress.evaluations, self.settings))  # a kill came before
            self.folder.cut_history(int(progress.evaluations[-1][0]) if progress.evaluations else 0)
        return progress

    def _adapt(self) -> None:
        """Adapters beside the weights, where these are to stand still."""
        if not self.settings.lora.rank:
            return
        torch.manual_seed(self.settings.seed)
        try:
            adapted = adapt(self.model, self.settings.lora, self.progress.anew)
        except ValueError as error:
            raise InputError(f"train.lora.targets: {error}") from None
        learning = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        whole = f", and {len(self.progress.anew)} weights that began anew" if self.progress.anew else ""
        self.log.say(
            f"{learning:,} numbers learn: adapters beside {len(adapted)} matrices{whole}; all others stand still."
        )

    def _set_weights(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint:
            origin = self.folder.checkpoints_path / str(self.progress.step)
            set_weights(self.model, checkpoint.weights, origin)
        elif self.settings.init:
            other, labels = find_run(self.settings.init), getattr(self.config.data, "labels", ())
            self.progress.anew = take_weights(self.model, other, self.folder, labels)
            self.log.say(described(other, self.progress.anew))
        elif hasattr(self.task, "given_weights"):
            set_weights(self.model, named_weights(self.model) | self.task.given_weights(), self.folder.path)

    def _distribute(self) -> tuple["_Loss", nn.Module, MasterAdam]:
        """The loss in this process alone, the loss whose gradients all processes share, and what moves the weights."""
        dtype = DTYPES[self.settings.precision]
        # The gradients are found on a copy, and the weights themselves stay in float32. (Shards are copied as they are
        # put together.)
        is_copied = dtype is torch.bfloat16 and not self.is_sharded
        compute = copy.deepcopy(self.model).bfloat16() if is_copied else self.model
        loss = _Loss(self.task, compute, self.settings.label_smoothing)
        if self.is_sharded:
            shard(loss, self.model, self.processes, dtype)
            return loss, loss, MasterAdam(self.model, compute, self.settings)
        optimizer = MasterAdam(self.model, compute, self.settings)
        return loss, self.processes.replicate(loss, optimizer.add_last if is_copied else None), optimizer

    def _check_shares(self, total: int) -> None:
        """Refuse a number of processes that cannot share the batches of a step evenly."""
        count = self.processes.count
        if total % count:
            fitting = [str(number) for number in range(1, total + 1) if total % number == 0]
            raise InputError(
                f"this run takes {total} micro-batches a step, which {count} processes cannot share evenly; resume "
                f"with {' or '.join(filter(None, [', '.join(fitting[:-1]), fitting[-1]]))}"
            )

    def try_largest_batch(self) -> None:
        """Forward and backward over the most expensive batch, so that memory runs out now or never."""
        rows = self.batches.largest()
        batch = self.batches.load(rows).to(self.processes.device)
        # A life must not leave a trace in what batch normalisation keeps, or a resumed run is another one.
        kept = [(buffer, buffer.clone()) for buffer in self.own_loss.buffers()]
        try:
            loss, _, _ = self.own_loss(batch)
            loss.backward()
        except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            if "memory" not in str(error).lower():
                raise
            raise InputError(
                f"the largest batch ({len(rows)} rows, {batch.num_tokens} tokens) does not fit the memory; "
                f"lower train.batch_tokens (now {self.settings.batch_tokens})"
            ) from None
        self.optimizer.zero_grad()
        for buffer, before in kept:
            buffer.copy_(before)
        self.log.say(
            f"The largest batch, {len(rows)} rows and {batch.num_tokens:,} tokens, fits: "
            f"{peak_memory_gib(self.processes.device):.1f} GiB of memory at its peak."
        )

    def _note_nonfinite(self, batches: list[np.ndarray], loss: float, norm: float) -> None:
        """Save the lines of a step whose numbers are not finite; give up after several in a row."""
        progress = self.progress
        progress.nonfinite += 1
        report = self.folder.path / "nonfinite" / f"step-{progress.step}-process-{self.processes.rank}.tsv"
        report.parent.mkdir(exist_ok=True)
        lines = [line for rows in batches for line in self.batches.lines(rows)]
        report.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="replace")
        self.log.warn(
            f"step {progress.step}: loss {loss}, gradient norm {norm}; the step is skipped, its lines are in {report}"
        )
        if progress.nonfinite >= self.settings.max_nonfinite:
            raise FloatingPointError(
                f"{progress.nonfinite} steps in a row had a loss or gradient that is not finite; their lines are in "
                f"{report.parent}. Look at them; then lower train.learning_rate or set train.precision to float32 in "
                f"{self.folder.config_path} and go on with: zhuyi train --resume --out {self.folder.path}"
            )


class _Loss(nn.Module):
    """The task's loss as a module, so that processes can share its gradients."""

    def __init__(self, task: Any, model: nn.Module, smoothing: float) -> None:
        super().__init__()
        self.task, self.model, self.smoothing = task, model, smoothing

    def forward(self, batch: Any) -> Any:
        return self.task.loss(self.model, batch, smoothing=self.smoothing)


def seed_step(seed: int, step: int, micro_batch: int) -> None:
    """Randomness is derived, not stored: a micro-batch draws the same in whichever life or process it runs."""
    state = np.random.SeedSequence([seed, step, micro_batch]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))


def build_model(config: RunConfig, device: torch.device | str = "cpu") -> nn.Module:
    """A model with first weights that depend on config and seed alone; bfloat16 is for gradients, not for weights."""
    torch.manual_seed(config.train.seed)
    dtype = torch.float64 if config.train.precision == "float64" else torch.float32
    return MODELS[config.model.name].module(config.model).to(device, dtype)


def resolve(config: RunConfig, derived: dict[str, dict[str, int]], device: torch.device) -> RunConfig:
    """The config with everything found that it left open: sizes that follow from the data, the precision.

    Raises: InputError: a size was given that contradicts the data.
    """
    values = config.as_dict()
    for section, sizes in derived.items():
        for key, size in sizes.items():
            if key not in values[section]:
                raise InputError(f"model.name = {config.model.name} is not for the task {config.task}: it has no {key}")
            given = values[section][key]
            # A published vocabulary may have more rows than there are pieces and signs for spans.
            if key == "vocab_size" and hasattr(config.data, "sentinels") and given > size:
                continue
            if key == "embedding" and given and config.train.init:  # sensors' vectors come with the weights
                continue
            if given and section == "model" and given != size:
                whose = "tokenizer has" if key.endswith("vocab_size") else "data have"
                raise InputError(f"{section}.{key} = {given}, but the {whose} {size}; leave it out")
            values[section][key] = given or size
    reach, longest = values["model"].get("max_len"), values["data"].get("max_len")
    if reach and longest and reach < longest:
        raise InputError(
            f"model.max_len = {reach}, but data.max_len = {longest} lets longer rows in; "
            "raise the one or lower the other"
        )
    if values["train"]["precision"] == "auto":
        values["train"]["precision"] = choose_precision(device)
    return parse_config(values, "config")


def _set_machine(config: TrainConfig) -> None:
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, CUDA's products refuse
        torch.use_deterministic_algorithms(True)

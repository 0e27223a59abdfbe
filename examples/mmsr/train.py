"""Training on Lightning: steps chosen on validation, then a model refitted on everything."""

from __future__ import annotations

import inspect
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Sampler

from examples.mmsr.configuration import LATER
from examples.mmsr.files import replacing, writing
from examples.mmsr.loss import cross_entropy
from examples.mmsr.metrics import rank_all, ranks, summarise
from examples.mmsr.protocol import Instances, Parts, Split
from examples.mmsr.recommender import Batch, Recommender

Make = Callable[[Parts], Recommender]
"""Makes a model with fresh weights; the parts are those it may count in."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is fitted.

    Args:
        epochs: at most so many are tried.
        patience: stop after so many epochs without a better MRR on validation.
        min_steps: but never before so many steps of the optimiser; a small data set's epochs are
            short, and training often begins with some that bring nothing.
        batch_size: histories per step of the optimiser, on all devices together.
        accumulate: parts of a batch whose gradients are added up before the step.
        evaluation_batch_size: histories ranked at a time.
        learning_rate: Adam's.
        weight_decay: Adam's.
        clip: the largest norm of the gradient, 0 for any.
        label_smoothing: of the cross-entropy.
        seed: of weights, order and dropout.
        workers: processes that build graphs; 0 builds them in the training process.
        threads: PyTorch's threads; 0 leaves them as they are.
        devices: processes that share every batch (DDP); under torchrun as many as it started.
        precision: Lightning's, such as ``bf16-mixed``.
        progress: whether to draw a progress bar.
    """

    epochs: int = 30
    patience: int = 3
    min_steps: int = field(default=900, metadata=LATER)
    batch_size: int = 128
    accumulate: int = 1
    evaluation_batch_size: int = 512
    learning_rate: float = 0.001
    weight_decay: float = 0.0
    clip: float = 0.0
    label_smoothing: float = 0.0
    seed: int = 0
    workers: int = 0
    threads: int = 0
    devices: int = 1
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "64-true"] = "32-true"
    progress: bool = True

    def __post_init__(self) -> None:
        positive = (
            "epochs",
            "patience",
            "batch_size",
            "accumulate",
            "evaluation_batch_size",
            "devices",
        )
        others = "min_steps", "learning_rate", "weight_decay", "clip", "seed", "workers", "threads"
        for least, names in ((1, positive), (0, others)):
            for name in names:
                if getattr(self, name) < least:
                    raise ValueError(
                        f"{name}: expected at least {least}, got {getattr(self, name)}"
                    )
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(
                f"label_smoothing: expected a number between 0 and 1, got {self.label_smoothing}"
            )

    def figures(self) -> TrainingConfig:
        """The same, with what does not decide any figure at its default."""
        default = TrainingConfig()
        return replace(
            self, workers=default.workers, threads=default.threads, progress=default.progress
        )

    def check_processes(self) -> None:
        """Make sure that torchrun, where it is at work, started as many processes as are meant.

        Raises:
            ValueError: it started another number.
        """
        started = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if started > 1 and self.devices != started:
            raise ValueError(
                f"devices: expected {started}, the processes that torchrun started, "
                f"got {self.devices}"
            )


PHASES = "search", "refit"
"""The folders in which :func:`fit` keeps its two trainings."""


class RunError(ValueError):
    """A run's folder that cannot be used as asked."""


def claim(out: str | Path, settings: dict[str, Any], resume: bool) -> None:
    """Take a folder for a run, and note the settings there.

    Args:
        out: the folder.
        settings: everything that decides the run's figures, as plain values.
        resume: whether the run in that folder is to go on.

    Raises:
        RunError: the folder has a run already and is not to be resumed, or has one of other
            settings, or of settings that nothing tells.
    """
    if rank_zero_only.rank:  # this process's rank zero has taken it, or is about to
        return
    file = Path(out) / "settings.json"
    settings = json.loads(json.dumps(settings))  # as it will be read: tuples are lists
    if file.exists():
        if not resume:
            raise RunError(f"{out} holds a run already; --resume true goes on with it")
        before = _flat(json.loads(file.read_text(encoding="utf-8")))
        now = _flat(settings)
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                raise RunError(
                    f"{out} holds a run with {name} = {before.get(name)}, not {now.get(name)}"
                )
    elif left := [phase for phase in PHASES if (Path(out) / phase).exists()]:
        raise RunError(
            f"{out} holds {' and '.join(left)}, but no {file.name} to tell of what run; "
            f"name another folder"
        )
    Path(out).mkdir(parents=True, exist_ok=True)
    write_json(file, settings)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


@dataclass(frozen=True)
class Part:
    """Rows of a batch that are computed together, and how many the whole batch has."""

    rows: np.ndarray
    whole: int


class Rows(Dataset[tuple[Instances, int]]):
    """Instances for a loader, taken a part of a batch at a time."""

    def __init__(self, instances: Instances) -> None:
        self.instances = instances

    def __getitem__(self, part: Part) -> tuple[Instances, int]:
        return self.instances[part.rows], part.whole


class Batches(Sampler[Part]):
    """Row numbers in batches, in an order drawn from the seed and the epoch alone.

    Args:
        count: of rows.
        batch_size: rows in a batch.
        seed: of the order; None leaves it as it is.
        parts: a batch is dealt out to so many,
        mine: of which these are this process's, one after another.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int | None,
        parts: int = 1,
        mine: Sequence[int] = (0,),
    ) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.parts, self.mine = parts, mine
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning, so that a resumed run goes on where it stopped."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // self.batch_size) * len(self.mine)

    def __iter__(self) -> Iterator[Part]:
        order = np.arange(self.count)
        if self.seed is not None:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        for begin in range(0, self.count, self.batch_size):
            batch = order[begin : begin + self.batch_size]
            for number in self.mine:
                yield Part(batch[number :: self.parts], len(batch))


@dataclass(frozen=True)
class Collate:
    """Makes a part of a batch the model's input.

    A method of :class:`Batching` would take the trainer along to a worker that is spawned, and a
    trainer cannot be pickled.
    """

    model: Recommender
    training: bool

    def __call__(self, part: tuple[Instances, int]) -> tuple[Batch, int]:
        instances, whole = part
        return self.model.batch(instances, self.training), whole


class Batching(L.LightningDataModule):
    """Loaders of instances, prepared for a model.

    Args:
        model: whose :meth:`Recommender.batch` makes the inputs.
        fit: instances to train on.
        validation: instances to rank after each epoch, or None.
        config: batch sizes, seed, workers.
    """

    def __init__(
        self,
        model: Recommender,
        fit: Instances,
        validation: Instances | None,
        config: TrainingConfig,
    ) -> None:
        super().__init__()
        self.model = model
        self.fit_instances, self.validation_instances = fit, validation
        self.config = config

    def train_dataloader(self) -> DataLoader[tuple[Instances, int]]:
        config = self.config
        return self._loader(
            self.fit_instances, config.batch_size, config.seed, config.accumulate, training=True
        )

    def val_dataloader(self) -> DataLoader[tuple[Instances, int]]:
        assert self.validation_instances is not None  # the trainer asks only where there are some
        return self._loader(
            self.validation_instances, self.config.evaluation_batch_size, None, 1, training=False
        )

    def _loader(
        self,
        instances: Instances,
        batch_size: int,
        seed: int | None,
        accumulate: int,
        training: bool,
    ) -> DataLoader[tuple[Instances, int]]:
        world, rank = (
            (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        )
        mine = [rank + world * number for number in range(accumulate)]
        batches = Batches(len(instances), batch_size, seed, world * accumulate, mine)
        if self.trainer:
            # Workers draw the first batches before Lightning tells the sampler a resumed run's
            # epoch; its current_epoch lags then.
            batches.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)
        return DataLoader(
            Rows(instances),
            sampler=batches,
            batch_size=None,
            collate_fn=Collate(self.model, training),
            num_workers=self.config.workers,
            persistent_workers=self.config.workers > 0,
            generator=torch.Generator(),  # else every new iterator would draw from dropout's
        )


class Fitting(L.LightningModule):
    """Cross-entropy over the whole catalogue, Adam, and the ranks of validation's targets.

    Args:
        model: what is fitted.
        config: the optimiser's settings.
        extra: what checkpoints carry beside the weights.

    Attributes:
        history: a row per finished epoch: ``epoch`` (from 1), ``steps`` so far, mean ``loss``,
            ``seconds`` of training and, where there is validation, its metrics.
    """

    def __init__(self, model: Recommender, config: TrainingConfig, extra: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.config, self.extra = model, config, extra
        self.history: list[dict[str, float]] = []
        self._ranks: list[Tensor] = []
        self._metrics: dict[str, float] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.parameters(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            # Lightning cannot clip the scaled gradients of mixed precision for a fused optimiser.
            fused=not (self.config.clip and self.config.precision.endswith("mixed")),
        )

    def on_train_epoch_start(self) -> None:
        # Dropout is drawn from the epoch's own seed, so that a resumed run repeats it, and from the
        # process's, so that those that share a batch do not drop the same.
        torch.manual_seed(
            self.config.seed * 100_003 + self.current_epoch + self.global_rank * 15_485_863
        )
        self._loss = torch.zeros((), device=self.device)
        self._count = 0
        self._began = time.perf_counter()

    def training_step(self, part: tuple[Batch, int], _: int) -> Tensor:
        batch, whole = part
        if not len(batch):  # a short batch has no row for this part; DDP wants every gradient
            return torch.stack([0 * p.sum() for p in self.parameters() if p.requires_grad]).sum()
        total = cross_entropy(self.model, batch, self.config.label_smoothing)
        self._loss += total.detach()
        self._count += len(batch)
        # Lightning takes the mean over a batch's parts, which need not be equally long.
        return total * (self.config.accumulate * self.trainer.world_size / whole)

    def on_train_batch_end(self, *_: Any) -> None:
        self._ended = time.perf_counter()  # validation is not an epoch's training

    def validation_step(self, part: tuple[Batch, int], _: int) -> None:
        batch, _ = part
        if not len(batch):
            return
        # In full precision, as at the test: scores rounded by mixed precision tie.
        with torch.autocast(self.device.type, enabled=False):
            self._ranks.append(ranks(self.model(batch), batch.targets).cpu())

    def on_validation_epoch_end(self) -> None:
        mine = torch.cat([torch.empty(0, dtype=torch.float64), *self._ranks])
        found = np.concatenate(_gathered(mine.numpy()))
        self._ranks.clear()
        self._metrics = {"MRR": 100 * float((1 / found).mean()), **summarise(found)}
        self.log("MRR", self._metrics["MRR"], prog_bar=True, logger=False)

    def on_train_epoch_end(self) -> None:
        losses, counts = zip(*_gathered((float(self._loss), self._count)), strict=True)
        row = {
            "epoch": self.current_epoch + 1,
            "steps": self.global_step,
            "loss": sum(losses) / sum(counts),
            "seconds": self._ended - self._began,
            **self._metrics,
        }
        self.history.append(row)
        self.log("loss", row["loss"], prog_bar=True, logger=False)
        for logger in self.loggers:
            logger.log_metrics({k: v for k, v in row.items() if k != "epoch"}, row["epoch"])
            logger.save()

    def on_save_checkpoint(self, saved: dict[str, Any]) -> None:
        saved.update(self.extra, history=self.history)

    def on_load_checkpoint(self, saved: dict[str, Any]) -> None:
        self.history = saved["history"]


def _gathered(mine: Any) -> list[Any]:
    """What every process has, in the order of their ranks."""
    if not torch.distributed.is_initialized():
        return [mine]
    all_: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(all_, mine)
    return all_


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that take the place of those before them once they are whole.

    Lightning's own are moved from the folder of temporary files, which is a copy where that is on
    another file system; a process that ends meanwhile would leave neither the old nor the new.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            TypeError: there are options, of which none are known.
        """
        if storage_options is not None:
            raise TypeError(f"storage_options: expected None, got {storage_options!r}")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as file:
            torch.save(checkpoint, file)


class StopAfter(L.Callback):
    """Ends training after so many steps, also inside an epoch.

    Lightning's own ``max_steps`` makes its loops count in steps, and a run that counts in steps
    does not begin its next epoch properly when it goes on from a checkpoint.

    Args:
        steps: of the optimiser, since the very first.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step >= self.steps:
            trainer.should_stop = True


class Patience(EarlyStopping):
    """Early stopping that is not heeded before so many steps, though their epochs count.

    Lightning's own ``min_steps`` only puts a stop
    off: a plateau before it ends training there, even where MRR rises again.

    Args:
        config: patience and steps.
    """

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__("MRR", mode="max", patience=config.patience)
        self.min_steps = config.min_steps

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, module)
        if trainer.global_step < self.min_steps:
            trainer.should_stop = False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        # A checkpoint of the epoch that ended training does not say so by itself.
        if self.wait_count >= self.patience and trainer.global_step >= self.min_steps:
            trainer.should_stop = True


def fit(
    make: Make,
    split: Split,
    config: TrainingConfig,
    out: str | Path,
    extra: Callable[[Recommender], dict[str, Any]] = lambda model: {},
) -> tuple[Recommender, dict[str, Any]]:
    """Choose the number of steps on validation, refit on everything, and rank the test targets.

    Everything done is kept under ``out``, and a call with the same arguments goes on from there.

    Args:
        make: makes the model, with fresh weights from PyTorch's generator; it is given the parts
            that the model is fitted on, to count in.
        split: the protocol's parts.
        config: how to fit.
        out: the run's folder.
        extra: what checkpoints carry beside the weights.

    Returns:
        The refitted model, in evaluation mode, and its record: the ``search`` row that validation
        chose, ``test`` metrics and the median ``seconds_per_epoch``.

    Raises:
        ValueError: a part of the split is empty, or torchrun started another number of processes
            than ``config.devices``.
    """
    out = Path(out)
    split.check()
    config.check_processes()
    if config.threads:
        torch.set_num_threads(config.threads)
    history = search(make, split, config, out / "search", extra)
    chosen = max(history, key=lambda row: row["MRR"])
    model = refit(make, split, config, out / "refit", int(chosen["steps"]), extra)
    found = rank_all(model.score, split.test, config.evaluation_batch_size)
    if rank_zero_only.rank == 0:
        np.savez_compressed(
            out / "test_ranks.npz", ranks=found.astype(np.float32), user=split.test.user
        )
    record = {
        "search": chosen,
        "test": summarise(found),
        "seconds_per_epoch": float(np.median([row["seconds"] for row in history])),
    }
    write_json(out / "record.json", record)
    return model, record


def search(
    make: Make,
    split: Split,
    config: TrainingConfig,
    out: Path,
    extra: Callable[[Recommender], dict[str, Any]] = lambda model: {},
) -> list[dict[str, float]]:
    """Train with early stopping on validation's MRR.

    Args:
        make, split, config, extra: as for :func:`fit`.
        out: the folder of this phase alone.

    Returns:
        The rows of :attr:`Fitting.history`.
    """
    done = out / "history.json"
    if done.exists():
        rows: list[dict[str, float]] = json.loads(done.read_text(encoding="utf-8"))
        return rows
    stop = Patience(config)
    fitting, _ = _run(make, split.fit, split.validation, config, out, extra, [stop], config.epochs)
    write_json(done, fitting.history)
    return fitting.history


def refit(
    make: Make,
    split: Split,
    config: TrainingConfig,
    out: Path,
    steps: int,
    extra: Callable[[Recommender], dict[str, Any]] = lambda model: {},
) -> Recommender:
    """Train on the whole train parts.

    Args:
        make, split, config, extra: as for :func:`fit`.
        out: the folder of this phase alone.
        steps: of the optimiser.

    Returns:
        The model in evaluation mode.
    """
    epochs = -(-steps // -(-len(split.train.prefixes()) // config.batch_size))
    fitting, model = _run(make, split.train, None, config, out, extra, [StopAfter(steps)], epochs)
    write_json(out / "history.json", fitting.history)
    return model.eval()


def _run(
    make: Make,
    parts: Parts,
    validation: Instances | None,
    config: TrainingConfig,
    out: Path,
    extra: Callable[[Recommender], dict[str, Any]],
    callbacks: list[L.Callback],
    epochs: int,
) -> tuple[Fitting, Recommender]:
    """One call of Lightning's trainer, from the last finished epoch where there is one."""
    torch.manual_seed(config.seed)
    model = make(parts)
    fitting = Fitting(model, config, extra(model))
    keep = ModelCheckpoint(
        out, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    csv = CSVLogger(out, name="logs")
    board = TensorBoardLogger(out, name="logs", version=csv.version)
    if config.progress:
        callbacks = [*callbacks, TQDMProgressBar(refresh_rate=20)]
    _quiet()
    trainer = L.Trainer(
        accelerator="auto",
        devices=config.devices,
        strategy=_ddp() if config.devices > 1 else "auto",
        use_distributed_sampler=False,
        precision=config.precision,
        accumulate_grad_batches=config.accumulate,
        max_epochs=epochs,
        callbacks=[*callbacks, keep],
        logger=[csv, board],
        plugins=[WholeCheckpoints()],
        gradient_clip_val=config.clip or None,
        log_every_n_steps=1,  # else Lightning warns of epochs shorter than its default
        num_sanity_val_steps=0,
        limit_val_batches=0 if validation is None else None,
        enable_model_summary=False,
        enable_progress_bar=config.progress,
        default_root_dir=out,
    )
    last = out / "last.ckpt"
    trainer.fit(
        fitting,
        datamodule=Batching(model, parts.prefixes(), validation, config),
        ckpt_path=last if last.exists() else None,
        weights_only=True,
    )
    return fitting, model


def _ddp() -> DDPStrategy:
    """Processes of which each has its features, which DDP would send around in each step."""
    options = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"
    return DDPStrategy(**{name: False})


def _quiet() -> None:
    """Keep Lightning from telling every run about hardware, hints and its own deprecations."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        "Checkpoint directory .* exists and is not empty",  # a resumed run's does
        "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # Lightning 2.6 on PyTorch 2.13
        "The '.*_dataloader' does not have many workers",  # building graphs takes milliseconds
        "It is recommended to use `self.log\\(.*sync_dist",  # figures are gathered already
    ):
        warnings.filterwarnings("ignore", message=message)


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all, so that a file that is there can be trusted."""
    if rank_zero_only.rank != 0:
        return
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

"""A computation, its formulations, and how one is measured: correctness first, then time."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import timing
from benchmarks.row import BOTH, FORWARD, Row, Settings, Timed, fill_cold
from mmgraph import kernels


@dataclass
class Program:
    """A differentiable function and the tensors that it is called on.

    Args:
        function: called on all leaves in order; returns one tensor or a list.
        leaves: by name; those of floats get gradients. Names that a case's reference has too are
            compared.
    """

    function: Callable[..., Tensor | list[Tensor]]
    leaves: dict[str, Tensor]

    def forward(self) -> Tensor | list[Tensor]:
        with torch.no_grad():
            return self.function(*self.leaves.values())

    def both(self, cotangents: list[Tensor]) -> tuple[list[Tensor], tuple[Tensor | None, ...]]:
        """The outputs and the gradients of all leaves, every one newly allocated."""
        out = as_list(self.function(*self.leaves.values()))
        leaves = [leaf for leaf in self.leaves.values() if leaf.requires_grad]
        return out, torch.autograd.grad(out, leaves, cotangents, allow_unused=True)


@dataclass(frozen=True)
class Formulation:
    """One way to compute something.

    Args:
        peer: whose way, such as ``torch-scatter``.
        variant: which of its ways, such as ``segment``.
        prepare: makes the program; an ``ImportError`` says that the peer is absent.
        peak: predicted bytes alive at the peak of the forward pass, and of forward + backward.
        scope: what it runs in.
        compiled: whether its first call compiles, so that its seconds are worth stating.
    """

    peer: str
    variant: str
    prepare: Callable[[], Program]
    peak: tuple[int, int] = (0, 0)
    scope: timing.Scope = contextlib.nullcontext
    compiled: bool = False


@dataclass
class Case:
    """A computation on a workload.

    Args:
        workload: its name.
        name: of the computation.
        formulations: ours first.
        reference: makes the program in float64 that tells what is right.
        edges: the number of edges it runs over.
        rows: with a reference of a part only: which nodes that part is.
        tolerance: largest error allowed, relative to a tensor's largest value.
    """

    workload: str
    name: str
    formulations: list[Formulation]
    reference: Callable[[], Program]
    edges: int = 0
    rows: Tensor | None = None
    tolerance: float = 1e-4


class Skipped(Exception):
    """A formulation that these settings leave out."""


class Wrong(Exception):
    """A formulation does not compute what the reference does."""


def leaves(tensors: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The same numbers as leaves that take gradients."""
    return {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in tensors.items()}


def as_list(out: Tensor | list[Tensor]) -> list[Tensor]:
    return [out] if isinstance(out, Tensor) else out


def measure(suite: str, case: Case, settings: Settings) -> Iterator[Row]:
    """Check every formulation, time it in blocks of its own, then all of them in turn.

    At more than one thread only ours and those under ``torch.compile``.
    """
    gc.collect()  # it does not run while calls are timed
    check = Check(case)
    rows: list[Row] = []
    cold: dict[str, list[Timed]] = {FORWARD: [], BOTH: []}
    for formulation in case.formulations:
        if settings.threads > 1 and not (formulation.compiled or formulation.peer == "mmgraph"):
            continue
        program: Program | None = None
        for quantity, peak in zip((FORWARD, BOTH), formulation.peak, strict=True):
            row = Row(
                suite,
                case.workload,
                case.name,
                formulation.peer,
                formulation.variant,
                quantity,
                settings.threads,
                edges=case.edges,
            )
            rows.append(row)
            if peak > settings.memory:
                row.status = "does not fit"
                row.detail = f"predicted peak {peak / 1e9:.0f} GB"
                continue
            try:
                with formulation.scope():
                    if program is None:
                        program = formulation.prepare()
                    row.first_call, row.error = check(program, quantity)
                    if not formulation.compiled:
                        row.first_call = None
                    call = check.call(program, quantity)
                    times = timing.block(call, settings.effort)
            except Exception as error:
                row.status, row.detail = status_of(error), describe(error)
                continue
            row.fill(times)
            if row.median < 1:  # slower ones are cold anyway
                cold[quantity].append((row, formulation.scope, call))
    for timed in cold.values():
        fill_cold(timed, settings)
    torch.compiler.reset()
    yield from rows


class Check:
    """Compares programs with the reference, computed once, in float64."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.cotangents: list[Tensor] | None = None
        self.wanted: dict[str, Tensor] = {}
        self.largest = 0.0

    def __call__(self, program: Program, quantity: str) -> tuple[float, float]:
        """Seconds of the first call, and the largest error.

        Raises:
            Wrong: if the error is above the case's tolerance.
        """
        if self.cotangents is None:
            self._learn(program)
        start = time.perf_counter()
        result = self.call(program, quantity)()
        seconds = time.perf_counter() - start
        if quantity == FORWARD:
            out, gradients = as_list(result), ()
        else:
            out, gradients = result
        found = {f"output {i}": tensor for i, tensor in enumerate(out)}
        taking = [name for name, leaf in program.leaves.items() if leaf.requires_grad]
        found |= {f"gradient of {n}": g for n, g in zip(taking, gradients, strict=False)}
        worst = 0.0
        for name in found.keys() & self.wanted.keys():
            error = self._error(name, found[name])
            if not error <= self.case.tolerance:
                raise Wrong(f"{name} is off by {error:.1e} of its largest value")
            worst = max(worst, error)
        return seconds, worst

    def call(self, program: Program, quantity: str) -> timing.Call:
        if quantity == FORWARD:
            return program.forward
        assert self.cotangents is not None
        return lambda: program.both(self.cotangents)

    def _learn(self, program: Program) -> None:
        """What is right, for cotangents drawn in the shape that a first program returns."""
        rows = self.case.rows
        generator = torch.Generator().manual_seed(0)
        with kernels.use_backend("torch"):
            reference = self.case.reference()
            like = reference if rows is None else program
            self.cotangents = [
                torch.randn(out.shape, generator=generator) for out in as_list(like.forward())
            ]
            part = [c if rows is None else c[rows] for c in self.cotangents]
            out, gradients = reference.both([c.double() for c in part])
        self.wanted = {f"output {i}": tensor.detach() for i, tensor in enumerate(out)}
        for (name, leaf), gradient in zip(reference.leaves.items(), gradients, strict=True):
            # What belongs to no node gets its gradient from all nodes, not from a part of them.
            if rows is None or leaf.shape != program.leaves[name].shape:
                self.wanted[f"gradient of {name}"] = gradient
                self.largest = max(self.largest, float(gradient.abs().max()))

    def _error(self, name: str, found: Tensor | None) -> float:
        """Largest difference, relative to the largest value; shapes may differ by ones."""
        if found is None:
            raise Wrong(f"{name} is missing")
        if self.case.rows is not None:
            found = found[self.case.rows]
        found, wanted = found.detach().double().squeeze(), self.wanted[name].squeeze()
        if found.shape != wanted.shape:
            raise Wrong(f"{name} has shape {list(found.shape)}, not {list(wanted.shape)}")
        if not wanted.numel():
            return 0.0
        # Some gradients are zero but for rounding, such as that of a bias on all of a softmax.
        scale = max(float(wanted.abs().max()), 0.01 * self.largest)
        return float((found - wanted).abs().max()) / (scale or 1.0)


def status_of(error: Exception) -> str:
    """What an exception says of the formulation that raised it."""
    for kind, status in ((ImportError, "absent"), (Skipped, "skipped"), (Wrong, "wrong")):
        if isinstance(error, kind):
            return status
    return "failed"


def describe(error: Exception) -> str:
    name = "" if status_of(error) != "failed" else f"{type(error).__name__}: "
    return name + (str(error).strip().splitlines() or [""])[0][:200]

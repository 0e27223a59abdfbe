"""A formulation under torch.compile, which makes a peer of its own of it."""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.case import Formulation, Program, Skipped
from benchmarks.row import Settings


def compiled(
    formulation: Formulation, settings: Settings, in_smoke: bool = False
) -> list[Formulation]:
    """The formulation compiled for fixed sizes and for any.

    A smoke test compiles only where `in_smoke` says so, and stops before Inductor.
    """
    backend = "aot_eager" if settings.smoke else "inductor"

    def prepare(dynamic: bool) -> Program:
        if settings.smoke and not in_smoke:
            raise Skipped("not compiled in a smoke test")
        program = formulation.prepare()
        program.function = torch.compile(program.function, dynamic=dynamic, backend=backend)
        return program

    return [
        replace(
            formulation,
            peer=f"{formulation.peer} compiled",
            variant=f"{formulation.variant}, {mode}",
            prepare=lambda dynamic=dynamic: prepare(dynamic),
            compiled=True,
        )
        for mode, dynamic in (("static", False), ("dynamic", True))
    ]

"""The same formulations on pytest-benchmark: `pytest benchmarks --benchmark-only`.

Small workloads, for a look at one formulation; `python -m benchmarks` makes the figures.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.case import Case, Check, Formulation, Skipped
from benchmarks.row import BOTH, FORWARD, Settings
from benchmarks.suites import builder, kernels, propagation
from benchmarks.timing import SMOKE
from benchmarks.workloads import WORKLOADS, small

SETTINGS = Settings(threads=1, smoke=True, effort=SMOKE)
BUILDERS = builder.formulations(small(WORKLOADS["paper"]))

# PyTorch's, of sparse tensors that PyG makes.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Sparse CSR tensor support is in beta",
    "ignore:Sparse invariant checks are implicitly disabled",
)


FORMULATIONS = [
    pytest.param(
        case,
        formulation,
        id="-".join(("small", case.workload, case.name, formulation.peer, formulation.variant)),
    )
    for suite in (kernels, propagation)
    for case in suite.cases(SETTINGS)
    for formulation in case.formulations
]


@pytest.mark.parametrize("quantity", [FORWARD, BOTH])
@pytest.mark.parametrize(("case", "formulation"), FORMULATIONS)
def test_formulation(benchmark: Any, case: Case, formulation: Formulation, quantity: str) -> None:
    torch.set_num_threads(1)
    check = Check(case)
    benchmark.group = f"{case.name}, {case.workload}, {quantity}"
    try:
        with formulation.scope():
            program = formulation.prepare()
            check(program, quantity)
            benchmark(check.call(program, quantity))
    except (ImportError, Skipped) as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", BUILDERS, ids="-".join)
def test_builder(benchmark: Any, name: tuple[str, str]) -> None:
    benchmark.group = "builder"
    benchmark(BUILDERS[name])

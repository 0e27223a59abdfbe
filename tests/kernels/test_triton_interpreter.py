"""The Triton kernels, with a GPU and without: the cases of `triton_cases.py`, in three ways.

Whether Triton interprets is decided when it is imported: so each way is a process of its own.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from mmgraph.kernels import fused_cuda


def _interpreter_works() -> bool:
    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(number) for number in text.split(".")[:2])

    # Before 3.7 it turns arrays of one number into numbers, which NumPy 2.4 no longer allows.
    return numbers(version("triton")) >= (3, 7) or numbers(np.__version__) < (2, 4)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize(
    "mode", ["interpret", "compile", pytest.param("device", marks=pytest.mark.gpu)]
)
def test_the_cases(mode: str) -> None:
    if mode == "interpret" and not _interpreter_works():
        pytest.skip("this Triton's interpreter does not work with this NumPy")
    interpret = "1" if mode == "interpret" else "0"
    environment = dict(os.environ, TRITON_TEST=mode, TRITON_INTERPRET=interpret)
    cases = Path(__file__).with_name("triton_cases.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)]
    if mode == "compile":  # whatever brings other code, not other numbers
        command += [
            "-k",
            "plain or everything or wide or typed or types or bfloat16 or weights or softmax",
        ]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
    assert " passed" in done.stdout


def test_offsets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ptr\[-1\]: expected the number of values, 5, got 2"):
        fused_cuda.segment_matmul(torch.ones(5, 2), torch.tensor([0, 2]), torch.ones(1, 2, 2))


@pytest.mark.parametrize("name", ["edge_attention", "edge_softmax", "aggregate", "segment_matmul"])
@pytest.mark.parametrize("suffix", ["", "_backward"])
def test_each_operator_has_a_kernel_that_takes_its_arguments(name: str, suffix: str) -> None:
    operator = getattr(torch.ops.mmgraph, name + suffix).default
    assert operator.has_kernel_for_dispatch_key(torch._C.DispatchKey.CUDA)
    parameters = inspect.signature(getattr(fused_cuda, name + suffix)).parameters
    assert list(parameters) == [argument.name for argument in operator._schema.arguments]


def test_other_types_are_refused() -> None:
    scores, ptr = torch.zeros(0, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.long)
    with pytest.raises(TypeError, match=r"bfloat16 or float16, got torch\.float64"):
        fused_cuda.edge_softmax(scores, ptr)


def test_without_triton_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "mmgraph.kernels._triton", raising=False)
    fused_cuda._kernels.cache_clear()
    fused_cuda.unavailable.cache_clear()
    reason = fused_cuda.unavailable()
    fused_cuda._kernels.cache_clear()
    fused_cuda.unavailable.cache_clear()
    assert reason is not None
    assert reason.startswith("Triton cannot be imported")

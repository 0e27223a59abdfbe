"""Vectors of numbers inside Numba's functions.

Numba has no vector type, and LLVM's vectoriser does not find these kernels' inner loops: sums of
rows whose addresses it cannot tell apart. So here are a type, a vector of ``width`` numbers, which
LLVM splits into the machine's own registers, and what the kernels do with it. ``width`` and
``masked`` are literal integers; with ``masked``, the lanes from ``count`` on are neither read nor
written, and are zero.

No operation assumes finite numbers: NaN and infinity come out as IEEE 754 has them. The order in
which a vector's lanes are summed is fixed at compilation, so results are the same in every run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import cgutils, types


def intrinsic(function: Callable[..., Any]) -> Any:
    """A function of Numba's types that returns a signature and what writes LLVM's code for it."""
    return extending.intrinsic(function)


class Vector(types.Type):
    """``width`` numbers of one floating-point type."""

    def __init__(self, dtype: types.Float, width: int) -> None:
        self.dtype, self.width = dtype, width
        super().__init__(name=f"Vector({dtype}, {width})")


class _VectorModel(extending.models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, _llvm(vector))


extending.register_model(Vector)(_VectorModel)

_INT = ir.IntType(64)


def _llvm(vector: Vector) -> ir.VectorType:
    number = ir.FloatType() if vector.dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(number, vector.width)


def _suffix(vector: Vector) -> str:
    return f"v{vector.width}f{vector.dtype.bitwidth}"


def _broadcast(builder: ir.IRBuilder, scalar: ir.Value, width: int) -> ir.Value:
    one = ir.Constant(ir.VectorType(scalar.type, width), ir.Undefined)
    one = builder.insert_element(one, scalar, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
    return builder.shuffle_vector(one, one, lanes)


def _mask(builder: ir.IRBuilder, count: ir.Value, width: int) -> ir.Value:
    lanes = ir.Constant(ir.VectorType(_INT, width), list(range(width)))
    return builder.icmp_signed("<", lanes, _broadcast(builder, count, width))


def _address(context: Any, builder: ir.IRBuilder, array: Any, value: Any, offset: Any) -> ir.Value:
    data = context.make_array(array)(context, builder, value).data
    return cgutils.gep_inbounds(builder, data, offset)


def _call(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list[ir.Value]) -> ir.Value:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _literals(*values: Any) -> bool:
    return all(isinstance(value, types.IntegerLiteral) for value in values)


@intrinsic
def array(typing: Any, address: Any, dtype: Any) -> Any:
    """The numbers at an address, as a one-dimensional array.

    Its length is not known, and given as 0: Numba would add it to negative indices, of which there
    are none, and need not do so for each number read.
    """
    kind = types.Array(dtype.dtype, 1, "C")

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        made = context.make_array(kind)(context, builder)
        data = builder.inttoptr(args[0], made.data.type)
        size = context.get_abi_sizeof(context.get_value_type(kind.dtype))
        context.populate_array(
            made,
            data=data,
            shape=cgutils.pack_array(builder, [ir.Constant(_INT, 0)]),
            strides=cgutils.pack_array(builder, [ir.Constant(_INT, size)]),
            itemsize=ir.Constant(_INT, size),
            meminfo=None,
        )
        return made._getvalue()

    return kind(types.int64, dtype), codegen


# A task is a row of 64-bit integers: how many of its parts were claimed, how many there are, the
# address of the order of rows (or 0), the kernel's own arguments, and where parts begin and end.


@intrinsic
def claim(typing: Any, task: Any) -> Any:
    """The next part of a task, which no other thread gets."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        counter = builder.inttoptr(args[0], _INT.as_pointer())
        return builder.atomic_rmw("add", counter, ir.Constant(_INT, 1), "monotonic")

    return types.int64(types.int64), codegen


@intrinsic
def arguments(typing: Any, task: Any, count: Any) -> Any:
    """A task's arguments."""
    if not _literals(count):
        return None
    kind = types.UniTuple(types.int64, count.literal_value)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        base = builder.inttoptr(args[0], _INT.as_pointer())
        values = [
            builder.load(cgutils.gep_inbounds(builder, base, position + 1))
            for position in range(kind.count)
        ]
        return context.make_tuple(builder, kind, values)

    return kind(types.int64, count), codegen


@intrinsic
def number(typing: Any, integer: Any) -> Any:
    """The float64 that has these bits."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


@intrinsic
def load(typing: Any, array: Any, offset: Any, count: Any, width: Any, masked: Any) -> Any:
    """``array[offset:offset + width]``."""
    if not _literals(width, masked):
        return None
    vector = Vector(array.dtype, width.literal_value)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        address = _address(context, builder, array, args[0], args[1])
        kind = _llvm(vector)
        pointer = builder.bitcast(address, kind.as_pointer())
        align = array.dtype.bitwidth // 8
        if not masked.literal_value:
            return builder.load(pointer, align=align)
        mask = _mask(builder, args[2], vector.width)
        arguments = [pointer, ir.Constant(ir.IntType(32), align), mask, ir.Constant(kind, None)]
        return _call(builder, f"llvm.masked.load.{_suffix(vector)}.p0", kind, arguments)

    return vector(array, types.int64, types.int64, width, masked), codegen


@intrinsic
def fetch(typing: Any, array: Any, offset: Any, width: Any) -> Any:
    """Ask for ``array[offset:offset + width]``, to be in cache when it is read."""
    if not _literals(width):
        return None
    line = 64 * 8 // array.dtype.bitwidth

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        pointer = _address(context, builder, array, args[0], args[1])
        hints = [ir.Constant(ir.IntType(32), value) for value in (0, 3, 1)]  # read, keep, data
        for first in range(0, width.literal_value, line):
            address = builder.gep(pointer, [ir.Constant(_INT, first)])
            address = builder.bitcast(address, ir.IntType(8).as_pointer())
            _call(builder, "llvm.prefetch.p0", ir.VoidType(), [address, *hints])
        return context.get_dummy_value()

    return types.void(array, types.int64, width), codegen


@intrinsic
def store(
    typing: Any, array: Any, offset: Any, vector: Any, count: Any, width: Any, masked: Any
) -> Any:
    """``array[offset:offset + width] = vector``."""
    if not _literals(width, masked):
        return None

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        address = _address(context, builder, array, args[0], args[1])
        pointer = builder.bitcast(address, _llvm(vector).as_pointer())
        align = array.dtype.bitwidth // 8
        if not masked.literal_value:
            builder.store(args[2], pointer, align=align)
        else:
            mask = _mask(builder, args[3], vector.width)
            arguments = [args[2], pointer, ir.Constant(ir.IntType(32), align), mask]
            name = f"llvm.masked.store.{_suffix(vector)}.p0"
            _call(builder, name, ir.VoidType(), arguments)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector, types.int64, width, masked), codegen


@intrinsic
def splat(typing: Any, scalar: Any, width: Any) -> Any:
    """``width`` times the same number."""
    if not _literals(width):
        return None
    vector = Vector(scalar, width.literal_value)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return _broadcast(builder, args[0], vector.width)

    return vector(scalar, width), codegen


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, in one step where the machine has one."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return _call(builder, f"llvm.fmuladd.{_suffix(a)}", _llvm(a), list(args))

    return a(a, b, c), codegen


@intrinsic
def mul(typing: Any, a: Any, b: Any) -> Any:
    """``a * b``."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.fmul(*args)

    return a(a, b), codegen


@intrinsic
def add(typing: Any, a: Any, b: Any) -> Any:
    """``a + b``."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.fadd(*args)

    return a(a, b), codegen


@intrinsic
def sub(typing: Any, a: Any, b: Any) -> Any:
    """``a - b``."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.fsub(*args)

    return a(a, b), codegen


@intrinsic
def choose(typing: Any, condition: Any, a: Any, b: Any) -> Any:
    """``a`` where the condition holds, else ``b``, without a branch that may be mispredicted."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.select(*args)

    return a(types.boolean, a, a), codegen


@intrinsic
def pick(typing: Any, message: Any, best: Any, a: Any, b: Any) -> Any:
    """Lane by lane ``a`` where ``message`` beats ``best``, else ``b``; the first NaN beats all."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        message, best, a, b = args
        not_below = builder.fcmp_unordered("ugt", message, best)  # larger, or either is NaN
        return builder.select(
            builder.and_(not_below, builder.fcmp_ordered("ord", best, best)), a, b
        )

    return a(message, best, a, b), codegen


def _integers(vector: Vector) -> ir.VectorType:
    return ir.VectorType(ir.IntType(vector.dtype.bitwidth), vector.width)


@intrinsic
def bits(typing: Any, integer: Any, dtype: Any, width: Any) -> Any:
    """``width`` times an integer, whose bits are carried by numbers of the type given."""
    if not _literals(width):
        return None
    vector = Vector(dtype.dtype, width.literal_value)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        value = args[0]
        if vector.dtype.bitwidth == 32:
            value = builder.trunc(value, ir.IntType(32))
        return builder.bitcast(_broadcast(builder, value, vector.width), _llvm(vector))

    return vector(types.int64, dtype, width), codegen


@intrinsic
def same(typing: Any, a: Any, b: Any, x: Any) -> Any:
    """Lane by lane ``x`` where the bits of ``a`` and ``b`` agree, else zero."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        a_, b_, x_ = args
        kind = _integers(a)
        equal = builder.icmp_signed("==", builder.bitcast(a_, kind), builder.bitcast(b_, kind))
        return builder.select(equal, x_, ir.Constant(_llvm(x), None))

    return x(a, b, x), codegen


@intrinsic
def total(typing: Any, a: Any) -> Any:
    """The sum of a vector's lanes, pairwise."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        (value,) = args
        width = a.width
        while width > 1:  # fold the upper half onto the lower one
            width //= 2
            lanes = ir.VectorType(ir.IntType(32), width)
            low = ir.Constant(lanes, list(range(width)))
            high = ir.Constant(lanes, list(range(width, 2 * width)))
            value = builder.fadd(
                builder.shuffle_vector(value, value, low),
                builder.shuffle_vector(value, value, high),
            )
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return a.dtype(a), codegen


# exp(x) = 2^n exp(r) with n = round(x / log 2), |r| <= log(2) / 2, and Taylor's polynomial for
# exp(r), whose remainder is below half a unit in the last place. log 2 is taken apart, so that
# n * (first part) is exact.
_EXP: dict[int, dict[str, Any]] = {
    32: {
        "round": 12582912.0,  # 1.5 * 2^23: adding it leaves the rounded number in the low bits
        "log2": (0.693359375, -2.12194440e-4),
        "degree": 7,
        "mantissa": 23,
        "least": -87.3,  # below, the result is less than the smallest normal number: zero
    },
    64: {
        "round": 6755399441055744.0,
        "log2": (0.693147180369123816490, 1.90821492927058770002e-10),
        "degree": 13,
        "mantissa": 52,
        "least": -708.3,
    },
}


@intrinsic
def exp(typing: Any, a: Any) -> Any:
    """The exponential of numbers that are not positive; NaN stays NaN, -infinity becomes 0."""
    constants = _EXP[a.dtype.bitwidth]

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        kind = _llvm(a)
        bits = _integers(a)

        def constant(number: float) -> ir.Constant:
            return ir.Constant(kind, [number] * a.width)

        def fused(x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
            return _call(builder, f"llvm.fmuladd.{_suffix(a)}", kind, [x, y, z])

        x = args[0]
        rounder = constant(constants["round"])
        shifted = fused(x, constant(1.4426950408889634), rounder)
        n = builder.fsub(shifted, rounder)
        first, second = constants["log2"]
        r = fused(n, constant(-first), x)
        r = fused(n, constant(-second), r)
        factorial = 1.0
        coefficients = [1.0]
        for k in range(1, constants["degree"] + 1):
            factorial *= k
            coefficients.append(1.0 / factorial)
        result: ir.Value = constant(coefficients.pop())
        while coefficients:
            result = fused(result, r, constant(coefficients.pop()))
        shift = ir.Constant(bits, [constants["mantissa"]] * a.width)
        exponent = builder.shl(builder.bitcast(shifted, bits), shift)
        scaled = builder.bitcast(builder.add(builder.bitcast(result, bits), exponent), kind)
        tiny = builder.fcmp_ordered("<", x, constant(constants["least"]))
        # A NaN's bits plus an exponent's may be any number: put NaN back.
        scaled = builder.select(builder.fcmp_unordered("uno", x, x), x, scaled)
        return builder.select(tiny, ir.Constant(kind, None), scaled)

    return a(a), codegen

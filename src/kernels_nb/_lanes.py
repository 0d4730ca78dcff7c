"""What LLVM has and Numba does not offer: vectors, for sums in a fixed number of float64 lanes; hints; single bits.

Numba runs LLVM without its SLP vectoriser, so lanes written as sixteen scalars stay scalar: a row sum then costs .30 ns
a value instead of .12. These intrinsics emit the vector loop itself, and give the bits of the C loops in
`../kernels_cy/_kernels.pxi`.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

DOUBLE = ir.DoubleType()
INDEX = ir.IntType(64)

# How many entries ahead the kernels ask for memory, as in Cython.
AHEAD = 1024


def _to_double(builder, value, numba_type, lanes=None):
    """A number, or a vector of `lanes` numbers, as float64."""
    target = DOUBLE if lanes is None else ir.VectorType(DOUBLE, lanes)
    if numba_type == types.float64:
        return value
    if numba_type == types.float32:
        return builder.fpext(value, target)
    return builder.sitofp(value, target) if numba_type.signed else builder.uitofp(value, target)


def _accumulate(context, builder, array_type, array, lanes, terms):
    """Add `terms(v)`, a list of vectors or numbers, into lanes: element k of the array goes to lane k % lanes.

    Returns one float64 for each term: its lanes combined by halving.
    """
    array = context.make_array(array_type)(context, builder, array)
    count = cgutils.unpack_tuple(builder, array.shape, 1)[0]
    element = context.get_value_type(array_type.dtype)
    size = element.width // 8 if isinstance(element, ir.IntType) else (4 if element == ir.FloatType() else 8)
    vector = ir.VectorType(DOUBLE, lanes)
    whole = builder.and_(count, ir.Constant(INDEX, -lanes))

    n_terms = len(terms(ir.Constant(DOUBLE, 0.0), builder))
    sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * lanes)) for _ in range(n_terms)]
    with cgutils.for_range_slice(builder, ir.Constant(INDEX, 0), whole, ir.Constant(INDEX, lanes)) as (k, _):
        _fetch(builder, builder.gep(array.data, [builder.add(k, ir.Constant(INDEX, AHEAD))]))
        pointer = builder.bitcast(builder.gep(array.data, [k]), ir.VectorType(element, lanes).as_pointer())
        loaded = builder.load(pointer, align=size)
        for total, term in zip(sums, terms(_to_double(builder, loaded, array_type.dtype, lanes), builder)):
            builder.store(builder.fadd(builder.load(total), term), total)
    with cgutils.for_range_slice(builder, whole, count, ir.Constant(INDEX, 1)) as (k, _):
        lane = builder.and_(k, ir.Constant(INDEX, lanes - 1))
        value = _to_double(builder, builder.load(builder.gep(array.data, [k])), array_type.dtype)
        for total, term in zip(sums, terms(value, builder)):
            old = builder.load(total)
            new = builder.fadd(builder.extract_element(old, lane), term)
            builder.store(builder.insert_element(old, new, lane), total)
    return [_halve(builder, builder.load(total), lanes) for total in sums]


def _halve(builder, vector, lanes):
    """Combine the lanes: j with j + lanes / 2, and so on down to one."""
    while lanes > 2:
        lanes //= 2
        undefined = ir.Constant(vector.type, ir.Undefined)
        low, high = (
            builder.shuffle_vector(
                vector, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(first, first + lanes)))
            )
            for first in (0, lanes)
        )
        vector = builder.fadd(low, high)
    return builder.fadd(*(builder.extract_element(vector, ir.Constant(INDEX, lane)) for lane in (0, 1)))


def _fetch(builder, address):
    """Ask for a line of memory: to read, into every cache, data."""
    byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    of_types = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
    fetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], of_types)
    builder.call(fetch, [builder.bitcast(address, byte), flag(0), flag(3), flag(1)])


@intrinsic
def lane_sum(typingctx, row):
    """Sum of row in 16 lanes, combined by halving."""

    def codegen(context, builder, signature, args):
        return _accumulate(context, builder, signature.args[0], args[0], 16, lambda value, _: [value])[0]

    return types.float64(row), codegen


@intrinsic
def lane_moments(typingctx, row, shift):
    """sum(row - shift), sum((row - shift) ** 2) in 16 lanes, combined by halving."""

    def codegen(context, builder, signature, args):
        splat = ir.Constant(ir.VectorType(DOUBLE, 16), ir.Undefined)
        for lane in range(16):
            splat = builder.insert_element(splat, args[1], ir.Constant(INDEX, lane))

        def terms(value, builder):
            d = builder.fsub(value, splat if isinstance(value.type, ir.VectorType) else args[1])
            return [d, builder.fmul(d, d)]

        moments = _accumulate(context, builder, signature.args[0], args[0], 16, terms)
        return context.make_tuple(builder, signature.return_type, moments)

    return types.UniTuple(types.float64, 2)(row, types.float64), codegen


@intrinsic
def prefetch(typingctx, row, k):
    """Ask for the 64 elements of row that begin at k: a hint, which may point beyond its end."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        position = context.cast(builder, args[1], signature.args[1], types.int64)
        start = builder.bitcast(builder.gep(data, [position]), ir.IntType(8).as_pointer())
        for line in range(context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))):
            _fetch(builder, builder.gep(start, [ir.Constant(INDEX, 64 * line)]))
        return context.get_dummy_value()

    return types.void(row, k), codegen


@intrinsic
def lowest_bit(typingctx, bits):
    """The place of the lowest bit that is set in a 64-bit number other than 0."""
    of_zero = ir.Constant(ir.IntType(1), 1)  # undefined

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], of_zero)

    return types.uint64(types.uint64), codegen


@intrinsic
def count_bits(typingctx, bits):
    """How many bits of a 64-bit number are set."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


@intrinsic
def panel_sums(typingctx, rows, values, panel, sums):
    """sums += sum(values[k] * panel[rows[k]]): that from zero, in the order of k; 256 bytes of sums."""

    def codegen(context, builder, signature, args):
        rows, values, panel, sums = (
            context.make_array(kind)(context, builder, array) for kind, array in zip(signature.args, args)
        )
        element = context.get_value_type(signature.args[3].dtype)
        size = 4 if element == ir.FloatType() else 8
        lanes = 256 // size
        vector = ir.VectorType(element, lanes)
        undefined, first = ir.Constant(vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        total = cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * lanes))
        n = cgutils.unpack_tuple(builder, rows.shape, 1)[0]
        with cgutils.for_range_slice(builder, ir.Constant(INDEX, 0), n, ir.Constant(INDEX, 1)) as (k, _):
            value = builder.load(builder.gep(values.data, [k]))
            value = value if value.type == element else builder.fpext(value, element)
            value = builder.shuffle_vector(builder.insert_element(undefined, value, first), undefined, everywhere)
            row = builder.load(builder.gep(rows.data, [k]))
            row = row if row.type == INDEX else builder.sext(row, INDEX)
            start = builder.gep(panel.data, [builder.mul(row, ir.Constant(INDEX, lanes))])
            loaded = builder.load(builder.bitcast(start, vector.as_pointer()), align=size)
            builder.store(builder.fadd(builder.load(total), builder.fmul(value, loaded)), total)
        to = builder.bitcast(sums.data, vector.as_pointer())
        builder.store(builder.fadd(builder.load(to, align=size), builder.load(total)), to, align=size)
        return context.get_dummy_value()

    return types.void(rows, values, panel, sums), codegen

# cython: language_level=3
"""The kernels, compiled for x86-64-v4."""

include "_kernels.pxi"

# cython: language_level=3
"""The kernels, compiled for any processor."""

include "_kernels.pxi"

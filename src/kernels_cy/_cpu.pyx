# cython: language_level=3
"""Which x86-64 level this processor has."""

cdef extern from *:
    """
    #if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
    static int csraxis_level(void) {
        __builtin_cpu_init();
        #define HAS(feature) __builtin_cpu_supports(feature)
        if (!(HAS("sse3") && HAS("ssse3") && HAS("sse4.1") && HAS("sse4.2") && HAS("popcnt"))) return 1;
        if (!(HAS("avx") && HAS("avx2") && HAS("bmi") && HAS("bmi2") && HAS("fma"))) return 2;
        if (!(HAS("avx512f") && HAS("avx512bw") && HAS("avx512cd") && HAS("avx512dq") && HAS("avx512vl"))) return 3;
        return 4;
    }
    #else
    static int csraxis_level(void) { return 0; }
    #endif
    """
    int csraxis_level() nogil


def x86_64_level():
    """1 to 4 for x86-64-v1 to -v4; 0 where that is not known."""
    return csraxis_level()

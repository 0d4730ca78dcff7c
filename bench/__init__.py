"""Benchmarks of csraxis: ``python -m bench --help``.

``cases`` says what is computed (``exact`` has the right answers, ``verify`` compares), ``contestants`` who computes it
(``calls`` has the functions), ``shapes`` on which matrices (``generate`` makes the large ones); each is a table with one
row per entry. ``measure`` verifies and times, ``report`` and ``picture`` show, ``machine`` says what it ran on,
``terminal`` is what all commands share.

``pipeline`` measures the single-cell chain: ``chain`` has its steps and who takes them, ``reference`` the right
results, ``memory`` the peaks, ``bars`` the picture. ``demo`` runs it on the embedded cells.
"""

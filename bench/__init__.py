"""Benchmarks of csraxis: ``python -m bench --help``.

``cases`` says what is computed (``exact`` has the right answers, ``verify`` compares), ``contestants`` who computes
it (``calls`` has the functions), ``shapes`` on which matrices (``generate`` makes the large ones); each is a table with
one row per entry. ``measure`` verifies and times, with ``memory``; ``report`` prints, ``machine`` says what it ran on,
``terminal`` is what all commands share.

``sweep``, ``overhead`` and ``fresh`` measure the cost against size and threads, of a call on little data and of a fresh
process. ``page`` makes Markdown and HTML of a recorded run, with the pictures of ``overview``, ``picture``, ``curves``
and ``costs``. ``compare`` tells what is slower than in another run.

``threads``, ``crossovers`` and ``import_cost`` measure what constants of the library are set to.

``pipeline`` measures the single-cell chain: ``chain`` has its steps and who takes them, ``reference`` the right
results, ``memory`` the peaks, ``bars`` the picture. ``demo`` runs it on the embedded cells.
"""

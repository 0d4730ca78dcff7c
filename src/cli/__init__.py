"""The command line: ``csraxis``, or ``python -m csraxis``.

_commands   the commands and their options; errors as one line and an exit status
_pca        `csraxis pca`: from a matrix on disk to an AnnData file with its principal components
_output     files that appear when they are complete
_report     what is shown meanwhile and at the end
_plot       the picture
"""

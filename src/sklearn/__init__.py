"""The single-cell steps as scikit-learn estimators: what is learned from some cells is applied to others.

    from csraxis.sklearn import PCA, Log1p, NormalizeTotal, Scale, SelectVariableGenes

_base       what the estimators share: the checks of their input
_normalize  NormalizeTotal, Log1p
_scale      Scale
_select     SelectVariableGenes
_pca        PCA

The numbers are those of `csraxis.pp`. Needs scikit-learn 1.6 or newer: `pip install "csraxis[sklearn]"`.
"""

try:
    from ._normalize import Log1p, NormalizeTotal
    from ._pca import PCA
    from ._scale import Scale
    from ._select import SelectVariableGenes
except ImportError as error:
    error.add_note('csraxis.sklearn needs scikit-learn 1.6 or newer: pip install "csraxis[sklearn]"')
    raise

__all__ = ["PCA", "Log1p", "NormalizeTotal", "Scale", "SelectVariableGenes"]

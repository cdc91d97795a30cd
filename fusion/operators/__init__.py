"""One file per mechanism by which tokens read tokens."""

from fusion.operators.causal import Causal
from fusion.operators.co_attention import CoAttention
from fusion.operators.conditional import Conditional
from fusion.operators.dense import Dense
from fusion.operators.joint import JointSoftmax
from fusion.operators.nystrom import Nystrom
from fusion.operators.nystrom_zero_padded import ZeroPaddedNystrom
from fusion.operators.phrase import AcrossPhrases, Phrase, WithinPhrase
from fusion.operators.relative import Relative

__all__ = [
    "AcrossPhrases",
    "Causal",
    "CoAttention",
    "Conditional",
    "Dense",
    "JointSoftmax",
    "Nystrom",
    "Phrase",
    "Relative",
    "WithinPhrase",
    "ZeroPaddedNystrom",
]

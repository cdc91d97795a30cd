"""K8: token-wise maximum similarity of all pairs, and retrieval by it."""

from kernels.max_similarity.collection import Matches, best_matches
from kernels.max_similarity.op import MaxSimilarity, max_similarity

__all__ = ["Matches", "MaxSimilarity", "best_matches", "max_similarity"]

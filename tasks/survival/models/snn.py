"""SNN: all genes as one vector through self-normalising layers (Klambauer 2017, arXiv 1706.02515; as in MCAT)."""

from __future__ import annotations

import torch
from torch import nn

from data.cohort.batch import CohortSizes, PatientBatch
from tasks.survival.models.base import Prediction, SurvivalModel


class SNN(SurvivalModel):
    """Genes alone, through `layers` times (linear, ELU, alpha dropout) and a linear layer.

    Weights start as N(0, 1 / fan_in), biases at 0: inputs of unit variance keep about unit variance through the layers.
    A patient without genes gets the logits of an all-zero (average) profile.

    Args:
        sizes: what the prepared cohort holds
        width: width of each layer
        layers: how many
        dropout: alpha dropout after each layer
        l1: weight of the sum of absolute values of all parameters, added to the loss while training
    """

    reads_slides = False

    def __init__(
        self, sizes: CohortSizes, *, width: int = 256, layers: int = 4, dropout: float = 0.25, l1: float = 0.0
    ):
        super().__init__(sizes)
        self.l1 = l1
        widths = [sum(self.gene_groups().values()), *[width] * layers]
        blocks: list[nn.Module] = []
        for i in range(layers):
            blocks += [nn.Linear(widths[i], widths[i + 1]), nn.ELU(), nn.AlphaDropout(dropout)]
        self.layers = nn.Sequential(*blocks)
        self.classify = nn.Linear(widths[-1], sizes.outputs)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)

    def forward(self, batch: PatientBatch) -> Prediction:
        genes = torch.cat(list(batch.genes.values()), dim=1).masked_fill(~batch.genes_present[:, None], 0.0)
        logits = self.classify(self.layers(genes))
        if self.training and self.l1:
            return Prediction(logits, {"l1": self.l1 * sum_of_absolutes(self)})
        return Prediction(logits)


def sum_of_absolutes(module: nn.Module) -> torch.Tensor:
    """L1 norm of all parameters."""
    return torch.stack([parameter.abs().sum() for parameter in module.parameters()]).sum()

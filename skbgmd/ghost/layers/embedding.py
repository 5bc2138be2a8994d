"""Embeddings: lookups in a table."""

from __future__ import annotations

import torch
from torch import nn

from skbgmd.ghost.factors import EmbeddingFactor
from skbgmd.ghost.registry import Factors, register_rule


@register_rule(nn.Embedding)
def embedding(layer: nn.Embedding, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """Gradients of the looked-up rows of the table."""
    if layer.max_norm is not None or layer.scale_grad_by_freq:
        raise NotImplementedError("max_norm and scale_grad_by_freq of Embedding depend on the other samples")
    units = inputs[0].reshape(len(inputs[0]), -1)
    row = torch.arange(len(units), device=units.device)[:, None].expand_as(units)
    values = gradient.reshape(-1, layer.embedding_dim)
    row, unit = row.reshape(-1), units.reshape(-1).to(torch.int64)
    if layer.padding_idx is not None:
        kept = unit != layer.padding_idx
        row, unit, values = row[kept], unit[kept], values[kept]
    return {"weight": EmbeddingFactor.of(row, unit, values, len(units), layer.num_embeddings)}

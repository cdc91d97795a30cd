"""Weights of the authors' CMTA code under our names (repository FT-ZHOU-ZZZ/CMTA, models/cmta).

| reference | ours |
|---|---|
| pathomics_fc.{0,3} | slide.layers.{0,3} |
| genomics_fc.G.0.0.weight `[out, d_G]`, .bias | genes.first.weight rows of group G, transposed; genes.first.bias[G] |
| genomics_fc.G.L.0.weight, .bias, L >= 1 | genes.layers.L-1.weight[G], transposed; genes.layers.L-1.bias[G] |
| pathomics_encoder, genomics_encoder | core.streams.slide, core.streams.genes |
| pathomics_decoder, genomics_decoder | core.streams.slide_from_genes, core.streams.genes_from_slide |
| STREAM.cls_token, STREAM.norm | STREAM.class_token, STREAM.norm |
| STREAM.pos_layer.proj, proj1, proj2 | STREAM.position.convolutions.0, 1, 2 |
| STREAM.layer1, layer2 (norm) | STREAM.first, STREAM.second (norm) |
| LAYER.attn.to_qkv.weight | LAYER.op.to_query.weight, LAYER.op.to_source.weight (first third, other two) |
| LAYER.attn.to_out.0, LAYER.attn.res_conv.weight | LAYER.op.out, LAYER.op.filter |
| P_in_G_Att, G_in_P_Att (in_proj, out_proj) | core.ops.0, core.ops.1 (to_query and to_source, out) |
| mm.{0,2} (concat) | head.fuse.layers.{0,2} |
| mm.linear_{h,z,o}I.0 (bilinear), I = 1, 2 | head.fuse.gates.I-1.{value,gate,out} |
| mm.encoder1.0, mm.encoder2.0 (bilinear) | head.fuse.first, head.fuse.second |
| classifier | head.classify |
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

STREAMS = {
    "pathomics_encoder": "core.streams.slide",
    "pathomics_decoder": "core.streams.slide_from_genes",
    "genomics_encoder": "core.streams.genes",
    "genomics_decoder": "core.streams.genes_from_slide",
}
RENAMED = [
    (r"^pathomics_fc\.", "slide.layers."),
    (r"^(\w+ics_(?:en|de)coder)\.cls_token$", r"\1.class_token"),
    (r"\.pos_layer\.proj\.", ".position.convolutions.0."),
    (r"\.pos_layer\.proj([12])\.", r".position.convolutions.\1."),
    (r"\.layer1\.", ".first."),
    (r"\.layer2\.", ".second."),
    (r"\.attn\.to_out\.0\.", ".op.out."),
    (r"\.attn\.res_conv\.weight$", ".op.filter"),
    (r"\.attn\.to_qkv\.", ".op.in_proj_"),
    (r"^P_in_G_Att\.", "core.ops.0."),
    (r"^G_in_P_Att\.", "core.ops.1."),
    (r"\.out_proj\.", ".out."),
    (r"^mm\.(\d)\.", r"head.fuse.layers.\1."),
    (r"^mm\.encoder1\.0\.", "head.fuse.first."),
    (r"^mm\.encoder2\.0\.", "head.fuse.second."),
    (r"^mm\.linear_h([12])\.0\.", r"head.fuse.gates.\1.value."),
    (r"^mm\.linear_z([12])\.0\.", r"head.fuse.gates.\1.gate."),
    (r"^mm\.linear_o([12])\.0\.", r"head.fuse.gates.\1.out."),
    (r"^classifier\.", "head.classify."),
]
GENES = re.compile(r"^genomics_fc\.(\d+)\.(\d+)\.0\.(weight|bias)$")


def our_name(key: str) -> str:
    """Our name for a reference key; `in_proj_` stands for the query and source projections together."""
    for pattern, name in RENAMED:
        key = re.sub(pattern, name, key)
    for reference, ours in STREAMS.items():
        if key.startswith(f"{reference}."):
            key = ours + key.removeprefix(reference)
    return re.sub(r"gates\.([12])\.", lambda gate: f"gates.{int(gate[1]) - 1}.", key)


def from_reference(reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State of `CMTA(variant="published")` from a state of the authors' model.

    Args:
        reference: name -> tensor, as `torch.load` gives it

    Raises:
        ValueError: a key that the authors' model does not have
    """
    ours: dict[str, Tensor] = {}
    groups: dict[tuple[int, str], dict[int, Tensor]] = {}
    for key, value in reference.items():
        if found := GENES.match(key):
            groups.setdefault((int(found[2]), found[3]), {})[int(found[1])] = value
            continue
        name = our_name(key)
        if name == key:
            raise ValueError(
                f"from_reference: {key!r} is no weight of the authors' CMTA; give its unchanged state_dict"
            )
        if "in_proj_" in name:
            width = len(value) // 3
            ours[name.replace("in_proj_", "to_query.")] = value[:width]
            ours[name.replace("in_proj_", "to_source.")] = value[width:]
        elif name.endswith("class_token"):
            ours[name] = value.flatten()
        elif name.endswith("op.filter"):
            ours[name] = value[:, 0, :, 0]
        else:
            ours[name] = value
    for (layer, kind), of_group in groups.items():
        parts = [of_group[group] for group in sorted(of_group)]
        if kind == "bias":
            joined = torch.stack(parts)
        elif layer == 0:
            joined = torch.cat([part.T for part in parts])
        else:
            joined = torch.stack([part.T for part in parts])
        ours[f"genes.first.{kind}" if layer == 0 else f"genes.layers.{layer - 1}.{kind}"] = joined
    return ours

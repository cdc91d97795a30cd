"""The alphabet of dimension names, used in jaxtyping signatures and einops strings alike.

b batch            n query tokens      s source tokens     w model width
h heads            d head width        e value head width
p patches          c patch channels    g genes in a group  m tokens of a stream
t time points      k time bins         x voxels            v vocabulary
l landmarks        i, j               free
"""

"""From the federation's frequent keys to a codebook of tissues, and its picture.

Lives here: embedding released keys in the plane, clustering, profiles, the page a
coordinator names the clusters with, and the ``codebook`` commands. May not live
here: any image, torch, anything that queries a sketch (the sites do, they hold the
key), or a key below the release gate.

The heavy libraries (umap, scikit-learn, matplotlib) are imported by the functions
that need them, so that the command's help stays quick.
"""

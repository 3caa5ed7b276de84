"""Known attacks on a rehearsed release: the site attacks itself before others can.

The attacker of this room has what an aggregator has: the plan, the weights that were
trained from and the difference that came back (``gradients``). ``slices`` takes every
neuron of the first dense layer for a picture, ``imprint`` the differences of
neighbouring ones (``reading``); ``unfolding`` and ``inversion`` turn features into cuts,
``scoring`` compares them with the crops that were really trained on (``crops``).
``membership`` asks whether the difference tells a trained case from another. Each is a
function of its arguments; ``examine`` runs all three behind a rehearsal.

Runs at the site, on its own images. Figures may be shown and printed; pictures go into
the page that a person asked for and nowhere else. Nothing here writes a file, reaches
the door, the outbox or a network. Attacks that find nothing prove nothing: others may
find more.
"""

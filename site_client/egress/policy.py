"""The ``policy.toml`` that ``cairn-site join`` writes: every default, and what it is for."""

from __future__ import annotations


def default_policy_text() -> str:
    """Return the commented file that ``cairn-site join`` writes."""
    return _DEFAULT


_DEFAULT = """\
# What this site allows, whatever a coordinator asks. Yours to edit.
# Unknown keys are refused. What is left out of [peers], [held_out], [receipts], [witnesses],
# [retention], [bounds] and [budget] has the value that is written here; every other key must
# be present. The worker reads this file for every order; its digest stands in every record of
# the ledger, and its text in the ledger's archive.
version = 1

[records]
# The closed set of what may leave. Take one out and it never leaves.
#   ModelUpdate  difference of the network's weights after a round
#   SketchTable  count sketch of experience: what a search met, and how far from its aim; keyed
#   RoundReport  counts, error figures per landmark, or the number of a failure
# For plans whose replay draws wrong-first, add:
#   ErrorTables  count sketches of what was replayed, and of how wrong the network was there
# For plans about slides, add:
#   PixelStatistics  sums over pixels: brightness, how bands go together, ranges
#   PixelSketches    count sketches of quantised pixels, keyed
#   HeavyHitters     frequent quantised pixels of the whole federation, and their counts
#   GroupCounts      pixels per group of a codebook
allowed = ["ModelUpdate", "SketchTable", "RoundReport"]

[bytes]
# Envelope bytes that may leave in one round, and in a whole run.
per_round = 67_108_864
per_run = 4_294_967_296

[floors]
# Nothing leaves that rests on less than this. A plan may ask for more, never for less.
# Images count that are trained on; errors on held-out ones need as many of their own.
images = 2
transitions = 100
sketch_fill = 0.01

[held_out]
# Subjects that are never trained on. Every round's model is tried on them too, so that
# its errors are told apart: on held-out images, and on those that it was trained on.
# So much of the subjects, drawn once with a secret number of this site and remembered in
# worker/heldout.json: at least floors.images of them, and none where there are fewer than
# four, or than twice floors.images. Who comes later is drawn in the same way.
# 0.0 holds nobody out. Nobody who was trained on is ever held out, and nobody who was
# held out is ever trained on, whatever is changed here later.
share = 0.2
# Or exactly these subjects, and no share: subjects = ["sub-07", "sub-12"]
subjects = []
# A subject is BIDS's sub-..., or else the file's name without its ending. Where names are
# built otherwise: a regular expression whose first group says it, '^(patient[0-9]+)'.
subject = ""

[privacy]
# 1: the aggregator cannot query a sketch without the federation key. 0: anybody can.
least_tier = 1

[keys]
# The federation key, with which sketches are hashed and sums are proven, comes from
# another site, sealed to this one; the aggregator carries it and cannot open it.
# This site gives it to, and takes it from:
#   listed    the sites that a person here has confirmed (cairn-site peers confirm NAME,
#             after one telephone call), and those below, by the fingerprint of their
#             ledger key (they see it in `cairn-site check`):
#             peers = {site-b = "64 hexadecimal digits"}
#   admitted  every site that the aggregator names as admitted. An aggregator that
#             lies could invent a site, and have the key sealed to that: then it can
#             query every sketch, and forge the sums that this site trains from.
#   never     nobody: a person carries worker/federation.key.
share = "listed"

[peers]
# Whom this site takes part with. A sum of two sites tells either of them what the
# other one sent, and a site that nobody here knows may be the aggregator itself.
# Of the other sites of a run, so many must be confirmed by a person of this site:
# cairn-site peers. 0 takes the aggregator's word for who takes part.
least_known = 2
# So many confirmed others must stand behind every sum that this site is sent.
least_in_sum = 1

[witnesses]
# Third witnesses of this site's ledger, if `cairn-site witnesses set` has named any.
# One that says that it has seen another history than the one here:
#   stop     nothing is released until a person has looked, and it cosigns again
#   proven   only if it shows a checkpoint that this site's own key has signed
#   tell     it is told, loudly, and nothing else happens
contradicted = "stop"
# Nothing more is released when so many releases wait for a quorum. 0: that never stops it.
unwitnessed = 100

[receipts]
# The aggregator signs what it has received; its receipt comes with its next order. When so
# many answers have left without one, nothing leaves until a receipt comes, but the number
# that says so. An aggregator that never signs could deny what it was sent.
due_within = 8

[retention]
# What was released stays in worker/ledger/payloads, for an auditor to open, this many days
# after its last release; then a record says that it was deleted. 0 keeps it for ever.
payload_days = 400

[pixels]
# Bounds on plans about slides ("pixels" and "embed"; allow them below). Without
# this section none is served.
# Nothing leaves that rests on fewer slides or pixels than this.
slides = 1
pixels = 10_000
# A quantised pixel may be named when the whole federation has so many of it, at so
# many sites. A plan that asks for less is refused.
key_pixels = 50
key_sites = 2
# A group of a codebook with fewer pixels than this may not be counted.
group_pixels = 100

[plans]
# Which kinds of plan are served.
#   training  trains the agent; no-op opens no image and measures the cost of a round
#   pixels    sums and counts the pixels of multi-band slides; embed maps slides with
#             a codebook. Not served unless you add them, and their records above:
#             they describe the tissue in your slides, and every other site that has
#             the federation key can query the sum of the sketches.
kinds = ["training", "no-op"]
# Which kinds of task an agent may be trained for.
tasks = [
  "landmark-3d", "landmark-3d-cube", "landmark-2d", "multi-agent-3d", "box-2d", "box-3d",
  "turned-box-2d", "view-plane", "registration-2d", "registration-3d", "seed-2d",
  "seed-3d", "glimpses-2d", "tracking-2d", "centreline-2d", "centreline-3d",
]
# "any", or a list of names: landmarks = ["AC", "PC"]
landmarks = "any"
# "any", or the fingerprints of the only plans that are served at all.
fingerprints = "any"
# Who says yes to a plan that has not been seen here before.
#   each      a person: it waits until somebody runs cairn-site plans approve, or refuse
#   bounded   nobody: whatever keeps to this file is served
approval = "each"
# Training begins at random weights. A plan that begins at a model is served when this
# site computed that model itself, or when you write the digest of its weights here.
start_models = []

[bounds]
# The least and the most that a plan may ask for, both allowed. A plan beyond them is
# refused before an image is opened. They are here because a plan can be bent until an
# update is a picture; widen one only for a study whose reasons you have read.
# What a gradient speaks of: many transitions, out of many searches in many images.
batch = [16, 1024]
updates = [10, 5000]
warmup = [100, 1_000_000]
replay_capacity = [1000, 1_000_000]
searches = [4, 256]
episode_steps = [5, 200]
# At least so many searches, each in an image drawn anew, before the first gradient.
episodes = 16
# How far one transition, one gradient and one update may go.
rare_first = [0.0, 0.5]
priority_alpha = [0.0, 0.7]
learning_rate = [1e-6, 1e-2]
gradient_clip = [1e-3, 100.0]
update_l2 = [0.0, 100.0]
# What an agent sees: a cut of the image, and not one grey value again and again.
# Stride in working voxels, the voxels' size, the side of a cut, the steps.
scales = [0.5, 8.0]
spacing_mm = [0.5, 4.0]
view_mm = [8.0, 400.0]
steps_mm = [0.5, 30.0]
angles_deg = [0.5, 30.0]
reach_mm = [1.0, 150.0]
scale_fraction = [0.0, 0.5]
shift_mm = [0.0, 100.0]
# Sizes: of the network, the experience table, the sketches of pixels.
roi = [9, 65]
width = [4, 32]
hidden = [8, 512]
landmarks = [1, 32]
experience_rows = [1, 32]
experience_columns = [16, 200_000]
position_bins = [2, 32]
max_cells_per_input = [0.01, 100.0]
min_transitions = [1, 1_000_000]
pixel_rows = [3, 32]
pixel_columns = [16, 500_000]
pixel_top = [1, 100_000]
# The course of a run. A quorum of one is an average of one site.
training_rounds = [1, 500]
quorum = [2, 1000]
deadline_s = [1.0, 86_400.0]
server_momentum = [0.0, 0.9]
evaluation_starts = [1, 20]
evaluation_poses = [1, 10]
evaluation_steps = [5, 400]

[budget]
# What may leave within so many days, over all runs together: a plan that asks a little
# in a hundred runs asks a lot. `cairn-site status` says what is spent, and what is left.
days = 30
# Different runs; rounds of work (training, pixels); evaluations; envelope bytes.
runs = 40
rounds = 600
evaluations = 60
bytes = 8_589_934_592
"""

"""Readers of what shards leave on a disk that several machines share."""

from __future__ import annotations

import json

from common.canonical import canonical_json
from site_client.pixels.checkpoints import Bond, open_sealed, write_sealed
from site_client.worker.slide_tasks import ASKED, read_asked
from tests.fuzz import corpus, mutations
from tests.fuzz.decoder import Decoder, filed, folder


def of_slides() -> list[Decoder]:
    bond = Bond("ab" * 32, "sketch", "cd" * 32, "0" * 16, bytes(16))
    place = folder() / "seed.part"
    more = {"digest": None, "found": 2, "pixels": 3, "slide": "one.npy"}
    write_sealed(place, bond, more, [bytes(range(32))])
    plan = json.loads(corpus.pixel_plan().canonical())
    asked = [
        canonical_json({"codec": codec, "phase": phase, "plan": plan})
        for codec, phase in ((None, "survey"), (corpus.codec(), "sketch"))
    ]
    return [
        Decoder(
            "result of a slide",
            (place.read_bytes(),),
            mutations.raw,
            filed(lambda path: open_sealed(path, bond), "one.part"),
            ("site_client.pixels.checkpoints.open_sealed",),
        ),
        Decoder(
            "what shards are asked",
            tuple(asked),
            mutations.as_json,
            filed(lambda path: read_asked(path.parent), f"asked/{ASKED}"),
            ("site_client.worker.slide_tasks.read_asked",),
        ),
    ]

"""Readers of plans, policies, codecs, codebooks, sketches and models."""

from __future__ import annotations

import shutil
from pathlib import Path

from aggregator.desk.local import parse_plan_toml
from aggregator.rounds.training import read_start
from common.arrivals.texts import json_of, toml_of
from common.canonical import parse_canonical_json
from common.checkpoint import loaded_weights, read_folder
from common.keys.codebook import Codebook
from common.keys.key_counts import KeyCounts, read_key_counts
from common.keys.pixel_agreement import read_codec, read_component_codec, require_planned
from common.plan import parse_plan, read_plan
from common.policy import parse_policy, read_policy
from common.released.card import decode_card
from common.released.checking import check_folder
from common.released.folder import ModelFolder
from common.released.provenance import decode_provenance
from common.settings.reading import parse_settings
from common.sketching.count_sketch import CountSketch
from common.wire.parcel import unwrap
from site_client.egress.policy import default_policy_text
from site_client.plans.waiting import plan_of
from tests.fuzz import corpus, mutations
from tests.fuzz.decoder import Decoder, filed, folder, text
from tests.fuzz.wire import allowing_policy


def _plan(data: bytes) -> object:
    return parse_plan(parse_canonical_json(data, "plan"))


def _settings(data: bytes) -> object:
    return parse_settings(type(allowing_policy()), toml_of(data), "policy")


def _start(data: bytes) -> object:
    return read_start(corpus.plan().model_copy(update={"start": corpus.start()}), data)


def _key_counts(path: Path) -> object:
    return read_key_counts(path)


def _model_folder(data: bytes) -> object:
    """A model's folder somebody was given: looked at whole, whatever lies in it."""
    root = folder() / "model"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, part in unwrap(data).items():
        (root / name).write_bytes(part)
    return check_folder(ModelFolder(root), corpus.WITNESS.public)


def _checkpoint(data: bytes) -> object:
    root = folder() / "checkpoint"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, part in unwrap(data).items():
        (root / name).write_bytes(part)
    return read_folder(root)


def of_documents() -> list[Decoder]:
    tables, released = corpus.tables(), corpus.released()
    plans = (corpus.plan().canonical(), corpus.pixel_plan().canonical())
    return [
        Decoder(
            "plan",
            plans,
            mutations.as_json,
            _plan,
            ("common.plan.reading.parse_plan", "common.settings.reading.parse_settings"),
        ),
        Decoder(
            "plan's text",
            plans,
            mutations.as_json,
            plan_of,
            (),
        ),
        Decoder(
            "plan's file",
            (corpus.plan_toml(),),
            mutations.as_toml,
            filed(read_plan, "plan.toml"),
            ("common.plan.reading.read_plan",),
        ),
        Decoder(
            "plan over the desk",
            (corpus.plan_toml(),),
            mutations.as_toml,
            parse_plan_toml,
            ("aggregator.desk.local.parse_plan_toml",),
        ),
        Decoder(
            "policy",
            (default_policy_text().encode(),),
            mutations.as_toml,
            filed(read_policy, "policy.toml"),
            ("common.policy.sections.read_policy",),
        ),
        Decoder(
            "archived policy",
            (allowing_policy().canonical(),),
            mutations.as_json,
            parse_policy,
            ("common.policy.sections.parse_policy",),
        ),
        Decoder(
            "checkpoint",
            (corpus.checkpoint(),),
            mutations.as_parcel,
            _checkpoint,
            ("common.checkpoint.read_folder",),
        ),
        Decoder(
            "codec",
            (tables["codec"],),
            mutations.as_json,
            text(lambda said: require_planned(read_codec(said), corpus.pixel_plan().pixels)),
            (
                "common.keys.pixel_agreement.read_codec",
                "common.keys.pixels.PixelCodec.from_dict",
                "common.keys.pixel_bands.BandCodec.from_dict",
            ),
        ),
        Decoder(
            "codec of components",
            (tables["codec"],),
            mutations.as_json,
            text(read_component_codec),
            ("common.keys.pixel_agreement.read_component_codec",),
        ),
        Decoder(
            "codebook",
            (tables["codebook"],),
            mutations.as_json,
            Codebook.from_bytes,
            ("common.keys.codebook.Codebook.from_bytes",),
        ),
        Decoder(
            "keys and counts",
            (tables["key-counts"],),
            mutations.as_safetensors,
            KeyCounts.from_bytes,
            ("common.keys.key_counts.KeyCounts.from_bytes",),
        ),
        Decoder(
            "keys and counts, a file",
            (tables["key-counts"],),
            mutations.as_safetensors,
            filed(_key_counts, "keys.safetensors"),
            ("common.keys.key_counts.read_key_counts",),
        ),
        Decoder(
            "sketch",
            (tables["sketch"],),
            mutations.as_safetensors,
            lambda data: CountSketch.from_bytes(data, corpus.spec()),
            (
                "common.sketching.count_sketch.CountSketch.from_bytes",
                "common.sketching.serial.decode",
            ),
        ),
        Decoder(
            "provenance",
            (released["provenance"],),
            mutations.as_json,
            decode_provenance,
            ("common.released.provenance.decode_provenance",),
        ),
        Decoder(
            "model's card",
            (corpus.card(),),
            mutations.as_json,
            decode_card,
            ("common.released.card.decode_card",),
        ),
        Decoder(
            "model",
            (released["model"],),
            mutations.as_safetensors,
            loaded_weights,
            ("common.checkpoint.loaded_weights",),
        ),
        Decoder(
            "model's folder",
            (corpus.model_folder(),),
            mutations.as_parcel,
            _model_folder,
            ("common.released.folder.ModelFolder.read",),
        ),
        Decoder(
            "start model",
            (released["model"],),
            mutations.as_safetensors,
            _start,
            ("aggregator.rounds.training.read_start",),
        ),
        Decoder(
            "JSON",
            (b'{"a":[1,2.5,{"b":null}],"c":"d"}', b"[" * 60 + b"]" * 60),
            mutations.as_json,
            json_of,
            ("common.arrivals.texts.json_of",),
            (ValueError,),
        ),
        Decoder(
            "TOML",
            (corpus.plan_toml(), default_policy_text().encode()),
            mutations.as_toml,
            toml_of,
            ("common.arrivals.texts.toml_of",),
            (ValueError,),
        ),
    ]

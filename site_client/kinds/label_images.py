"""Kinds whose truth is a label image beside each image."""

from __future__ import annotations

from typing import ClassVar

from common.settings import KINDS, AgentSettings
from site_client.imaging.data_settings import DataSettings
from site_client.imaging.label_images import labels_in
from site_client.imaging.sources import Source, Wanted, label_image_files, names_in
from site_client.kinds.kind import TaskKind
from site_client.kinds.values import F, T


class LabelImageKind(TaskKind[T, F]):
    """A kind that finds its cases by their label images.

    Attributes:
        no_table: what to do about a table of truths, which holds no label images.
    """

    no_table: ClassVar[str] = "Save the label images themselves"

    def find_files(self, sought: Wanted, data: DataSettings) -> Source:
        """Find images and their label images."""
        return label_image_files(sought, data, self.no_table)

    def labelled(self, source: Source) -> Source:
        """Keep the images with a label image."""
        return source.with_boxes()

    def names(self, source: Source, config: AgentSettings) -> tuple[str, ...]:
        """List the labels, in the order of their numbers."""
        if config.task.landmarks:
            return config.task.landmarks
        dim = KINDS[config.task.kind].dim
        names = names_in(source, lambda f: labels_in(source.partners[f.name], dim), self.known)
        return tuple(sorted(names, key=int))

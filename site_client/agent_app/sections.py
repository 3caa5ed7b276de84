"""The sections of a configuration that are not the agent's: where data lies, how a run is kept.

What each setting means stands in its class and is printed as a comment beside it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common.settings import Frozen, Names

Text = Annotated[str, Field(max_length=4096)]


class DataSettings(Frozen):
    """The place of images and landmarks, and their split into subjects.

    Attributes:
        images: a BIDS or flat folder, one image, a DICOM folder, or a text file with one
            image path per line; ``--data`` takes its place.
        landmarks: "" looks beside each image (.mrk.json, .fcsv, or .txt with one ``x,y,z``
            voxel line per landmark) and under BIDS derivatives; otherwise a folder of such
            files, a list of them line by line with the images, or a .csv table of all. For
            boxes, label images: "" looks beside each image for <case>_label (_labels, -label,
            _seg, .seg, _dseg, _mask) in any format; otherwise a folder of label images, a list of
            them, or a .csv table "case,label,x0,y0[,z0],x1,y1[,z1]". Not for registration.
        moving: for registration: the moving images, already lying on those of ``images``: a list
            line by line with them, or a folder with the same names; "" moves the image itself.
        validation: images held out, as ``images``; "" splits by subject as below.
        validation_landmarks: as ``landmarks``, for ``validation``.
        validation_moving: as ``moving``, for ``validation``.
        validation_subjects: the subjects to hold out; none draws ``validation_share`` of them.
        validation_share: share of the subjects that is held out; 0 trains on all and has no best
            checkpoint.
        subject: regular expression whose first group, found in a case's name, is the subject;
            "" takes BIDS's sub-..., or else every case for a subject of its own.
        unit: of positions in a table that does not say it: "mm" or "voxel".
        coordinate_system: of positions in mm in a table that does not say it: "LPS" or "RAS".
        names: of the landmarks in files without names, in the order of their lines or columns.
        pixel_mm: size of the pixels of PNG, JPEG, TIFF and BMP files; 0 where all files say it.
    """

    images: Text = ""
    landmarks: Text = ""
    moving: Text = ""
    validation: Text = ""
    validation_landmarks: Text = ""
    validation_moving: Text = ""
    validation_subjects: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    validation_share: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    subject: Text = ""
    unit: Literal["", "mm", "voxel"] = ""
    coordinate_system: Literal["", "LPS", "RAS"] = ""
    names: Names = ()
    pixel_mm: Annotated[float, Field(ge=0, le=100)] = 0.0


class RunSettings(Frozen):
    """The course of a run and its files.

    Attributes:
        output: folder for checkpoints, metrics and TensorBoard; ``--output`` takes its place.
        seed: of first weights, exploration, sampling and the split.
        threads: of the network's arithmetic; another number gives other weights.
        device: ``cpu``, ``cuda``, or ``auto``, which takes a graphics card where there is one; a
            card gives slightly other weights.
        execution: ``plain``, or ``fastest``: where the processor has 16-bit arithmetic, convolve
            in it with another memory layout; that gives slightly other weights there.
        log_every: updates between two lines of metrics.
        checkpoint_every: updates between two saves of the latest checkpoint.
        evaluate_every: updates between two evaluations on the validation cases.
        validation_starts: searches per validation case and landmark.
        validation_poses: random poses per validation case.
    """

    output: Text = ""
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    execution: Literal["plain", "fastest"] = "plain"
    log_every: Annotated[int, Field(ge=1)] = 50
    checkpoint_every: Annotated[int, Field(ge=1)] = 500
    evaluate_every: Annotated[int, Field(ge=1)] = 500
    validation_starts: Annotated[int, Field(ge=1, le=100)] = 1
    validation_poses: Annotated[int, Field(ge=1, le=100)] = 2

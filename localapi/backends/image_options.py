"""Options of chat models that accept images or audio: allowed sources of images, and maximum sizes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from localapi.backends.options import ChatOptions, Duration, FolderOf, located_folder

ANY_HOST: Final = "*"
_HOST: Final = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9._-]*[a-z0-9])?(:\d{1,5})?|\[[0-9a-f:.]+\](:\d{1,5})?")


def _host(host: str) -> str:
    said = host.lower()
    if "/" in host:
        raise ValueError("should be a host name, without https:// and without a path")
    if said != ANY_HOST and not _HOST.fullmatch(said):
        raise ValueError('should be a name such as images.example.com, *.example.com, 192.168.1.5:8080, [::1] or "*"')
    return said


Host = Annotated[str, AfterValidator(_host)]


@dataclass(frozen=True)
class ImageLimits:
    """Allowed sources and sizes of images."""

    hosts: tuple[str, ...]
    folders: tuple[str, ...]
    count: int
    megabytes: int
    """Maximum size of each file."""
    megapixels: int


@dataclass(frozen=True)
class RecordingLimits:
    """Allowed sizes of recordings."""

    count: int
    megabytes: int
    """Maximum size of each file."""
    seconds: float


class SeeingOptions(ChatOptions):
    """Options of a chat model whose images and recordings this server checks before the engine gets them.

    Because the class sets `section`, these are settings: changing them reloads nothing.
    """

    section = "chat"

    image_hosts: Annotated[
        list[Host],
        Field(
            description="Hosts from which images may be fetched: a name, *.name or an IP address, with or without a "
            'port; "*" for all public hosts.',
            examples=[["images.example.com", "192.168.1.5:8080"]],
        ),
    ] = []
    image_folders: Annotated[
        list[str],
        Field(
            description="Folders from which requests may use images by file: URL.",
            examples=[["./pictures"]],
        ),
    ] = []
    max_images: Annotated[int, Field(ge=1, le=1000, description="Maximum images in a request.", examples=[4])] = 32
    max_image_mb: Annotated[int, Field(ge=1, le=1024, description="Maximum size of an image file.", examples=[8])] = 20
    max_image_megapixels: Annotated[
        int,
        Field(
            ge=1,
            le=1000,
            description="Maximum width times height of an image, in millions. Larger images are rejected without "
            "decoding.",
            examples=[16],
        ),
    ] = 64
    max_recordings: Annotated[
        int, Field(ge=1, le=1000, description="Maximum recordings in a request.", examples=[2])
    ] = 8
    max_recording_mb: Annotated[
        int, Field(ge=1, le=1024, description="Maximum size of a recording file.", examples=[4])
    ] = 10
    max_recording_duration: Annotated[
        Duration, Field(description="Maximum length of a recording. Many models hear less.", examples=["30s"])
    ] = 600.0

    @property
    def recording_limits(self) -> RecordingLimits:
        """Allowed sizes of recordings."""
        return RecordingLimits(self.max_recordings, self.max_recording_mb, self.max_recording_duration)

    @property
    def image_limits(self) -> ImageLimits:
        """Allowed sources and sizes of images."""
        folders, hosts = tuple(self.image_folders), tuple(self.image_hosts)
        return ImageLimits(hosts, folders, self.max_images, self.max_image_mb, self.max_image_megapixels)

    def located(self, folder_of: FolderOf) -> ChatOptions:
        """Return this entry with absolute paths of its image folders. Raise PathProblem."""
        folders = enumerate(self.image_folders)
        found = [located_folder(("image_folders", index), path, folder_of) for index, path in folders]
        return self.model_copy(update={"image_folders": found})

"""Music that is fetched by name: each source into its folder, with a table of pieces, licences and what is left out."""

from __future__ import annotations

from lib.data.sources import debian, midi, stems

SOURCES = {
    source.name: source
    for source in (debian.PACKAGES, debian.MORE, midi.PACKAGES, stems.ELEMENTS_SOURCE, stems.MUSIC_DELTA)
}
"""By name; each has ``there(root)`` and ``provide(root, download, workers)``."""

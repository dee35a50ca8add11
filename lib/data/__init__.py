"""Music on disk: every reader gives the same `lib.data.tracks.Track`."""

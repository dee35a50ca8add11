"""The machine: devices, processes, signals, faults; nothing here knows of music."""

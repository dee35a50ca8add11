"""A profile: every number of a study, read from YAML, checked, and nothing else."""

from lib.profile.fields import RENDERED, Profile, is_named, project_path
from lib.profile.load import find, load, override, to_dict

__all__ = ["RENDERED", "Profile", "find", "is_named", "load", "override", "project_path", "to_dict"]

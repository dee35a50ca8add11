"""Write the JSON schema by which editors check profiles: ``python -m lib.profile``."""

import json

from lib.profile.fields import PROFILES
from lib.profile.schema import json_schema

(PROFILES / "schema.json").write_text(json.dumps(json_schema(), indent=1) + "\n", "utf-8")

"""Running a study: notebooks in order, single runs on clusters, estimates, the audit."""

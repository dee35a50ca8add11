"""From runs to tables: one module a notebook, and what they share."""

"""From finished runs to tables, figures, claims and pages; trains nothing."""

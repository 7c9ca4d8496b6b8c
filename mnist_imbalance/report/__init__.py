"""From finished runs to tables, figures, claims and pages; imports no training code."""

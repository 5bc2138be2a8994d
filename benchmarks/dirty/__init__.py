"""Clean and dirty data, what trains on them, and the table that the estimators' defaults are decided by."""

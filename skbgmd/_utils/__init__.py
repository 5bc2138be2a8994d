"""Helpers that all packages use: checks, arrays, random numbers, slices, files, thresholds."""

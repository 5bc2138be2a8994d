"""What every room uses: checks, arrays, generators of random numbers, slices, files, thresholds."""

"""What biobank speaks of. Nothing here does I/O; everything else may import it."""

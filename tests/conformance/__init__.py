"""What a genuine OMERO.server was seen to do, asserted of whichever server is at hand."""

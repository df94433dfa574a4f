"""The files behind objects of the catalog, brought into a folder and verified."""

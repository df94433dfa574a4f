"""The catalog, the lineage index, the Galaxy recorder and reanalysis of biobank."""

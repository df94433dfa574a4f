"""Keeps a lineage index in step with a catalog, by events over RabbitMQ: `biobank-sync`."""

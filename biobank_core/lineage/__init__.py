"""The lineage index: objects as nodes, actions as edges, and the questions asked of it."""

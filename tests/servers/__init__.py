"""How the real servers that tests and the demo run against are installed, started and stopped."""

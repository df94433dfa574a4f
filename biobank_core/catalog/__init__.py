"""The catalog: the truth. `port` says what every driver does; `registry` opens one by its URL."""

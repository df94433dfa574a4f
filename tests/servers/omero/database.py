"""The stand-in's connections to PostgreSQL: one a thread, opened again when it was lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg


class Database:
    """Gives each thread its own connection; a transaction is one call's."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._local = threading.local()

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """Yield a connection in a transaction: committed at the end, rolled back after an error."""
        connection = self._connection()
        try:
            yield connection
            connection.commit()
        except BaseException:
            if not connection.broken:
                connection.rollback()
            raise
        finally:
            if not connection.closed:
                connection.isolation_level = None

    @staticmethod
    def show_one_moment(connection: psycopg.Connection[Any]) -> None:
        """Let all that this call reads from now on be of one moment. It must not have written.

        What a genuine server asks in one statement takes us several, and others commit in between.
        """
        connection.commit()
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    def _connection(self) -> psycopg.Connection[Any]:
        connection: psycopg.Connection[Any] | None = getattr(self._local, "connection", None)
        if connection is not None and not connection.closed:
            try:
                connection.execute("select 1")
            except psycopg.OperationalError:
                connection.close()
        if connection is None or connection.closed:
            connection = psycopg.connect(self._url)
            self._local.connection = connection
        return connection

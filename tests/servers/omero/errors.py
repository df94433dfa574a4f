"""The server's errors, made from a text, and what becomes of PostgreSQL's."""

from __future__ import annotations

import re
from typing import Any

import omero
import psycopg

_BACK_OFF_MS = 500
_CONSTRAINT = re.compile(r'constraint "(\w+)"')


def server_error(kind: type[omero.ServerError], message: str) -> omero.ServerError:
    """Return an error as the server sends it: class, text and the Java class it stands for."""
    java_name = f"ome.conditions.{kind.__name__}"
    error = kind("", java_name, message)
    if isinstance(error, omero.ConcurrencyException):
        error.backOff = _BACK_OFF_MS
    return error


def api_usage(message: str) -> omero.ServerError:
    """Return what a call with wrong arguments gets."""
    return server_error(omero.ApiUsageException, message)


def validation(message: str) -> omero.ServerError:
    """Return what a save of unusable data gets."""
    return server_error(omero.ValidationException, message)


def no_row(java_name: str, row_id: int) -> str:
    """Return the text about a row that is not there."""
    text = f"No row with the given identifier exists: [{java_name}#{row_id}]"
    return f"{text}; nested exception is org.hibernate.ObjectNotFoundException: {text}"


def security(message: str) -> omero.ServerError:
    """Return what one who may not gets."""
    return server_error(omero.SecurityViolation, message)


def internal(message: str) -> omero.ServerError:
    """Return what nobody foresaw."""
    return server_error(omero.InternalException, message)


def not_implemented(what: str) -> omero.ServerError:
    """Return the stand-in's own error: it never pretends to have done something."""
    return internal(f"the stand-in for OMERO does not implement {what}")


def translated(error: psycopg.Error, doing: str) -> omero.ServerError:
    """Return what OMERO makes of a database error; `doing` is like `insert: [ome.model...]`."""
    first = str(error).partition("\n")[0]
    if isinstance(error, psycopg.errors.DeadlockDetected):
        return server_error(omero.TryAgain, f"could not {doing}; {first}")
    if isinstance(error, psycopg.errors.IntegrityError):
        match = _CONSTRAINT.search(first)
        constraint = match[1] if match else "null"
        return validation(
            f"could not {doing}; SQL [...]; constraint [{constraint}]; nested exception is "
            f"org.hibernate.exception.ConstraintViolationException: could not {doing}"
        )
    if isinstance(error, psycopg.DataError):
        return validation(f"could not {doing}; SQL [...]; nested exception is {first}")
    if isinstance(error, psycopg.ProgrammingError):
        return api_usage(f"could not execute query; bad SQL grammar []; {first}")
    return internal(f" Wrapped Exception: could not {doing}:\n{first}")


class CommandFailed(Exception):
    """A submitted request is answered with an error; its transaction is rolled back."""

    def __init__(self, response: Any) -> None:
        super().__init__(response.name)
        self.response = response

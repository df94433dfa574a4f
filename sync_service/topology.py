"""What stands at the broker: one exchange and queue for events, one of each for dead letters.

    biobank.lineage (topic)  --lineage.#-->  biobank.lineage.index    quorum queue
    biobank.dead-letters (fanout)  ------->  biobank.dead-letters     quorum queue

There is no delivery limit, and no dead-letter exchange on the queue: a lost connection would count
against good messages. The consumer counts tries itself and sets aside what it can't use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from biobank_core.config import Secret, Settings
from biobank_core.errors import ConfigurationError

EXCHANGE: Final = "biobank.lineage"
QUEUE: Final = "biobank.lineage.index"
BINDING: Final = "lineage.#"
DEAD_EXCHANGE: Final = "biobank.dead-letters"
DEAD_QUEUE: Final = "biobank.dead-letters"

# From this release on a quorum queue drops a message after 20 deliveries unless told not to; before
# it, the word for "no limit" meant "none at all" (rabbitmq-server, pull request 12250).
_LIMITS_DELIVERIES: Final = 4

_PORTS: Final = {"amqp": 5672, "amqps": 5671}


def queue_arguments(version: str) -> dict[str, object]:
    """How our queues are declared at a RabbitMQ of this version (`3.10.8`).

    Quorum: survives the loss of a broker's process or, in a cluster, of a machine.
    """
    major = version.partition(".")[0]
    limited = major.isdecimal() and int(major) >= _LIMITS_DELIVERIES
    return {"x-queue-type": "quorum"} | ({"x-delivery-limit": -1} if limited else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """Where the broker is and who we are there. `url` has no secrets."""

    url: str
    host: str
    port: int
    virtual_host: str
    tls: bool
    user: str
    password: Secret

    @classmethod
    def of(cls, settings: Settings) -> BrokerAddress:
        """The broker that the settings name. Raises ConfigurationError that says what to set."""
        if settings.broker is None:
            raise ConfigurationError(
                "which RabbitMQ? Give --broker URL or set BIOBANK_BROKER, such as "
                "amqp://rabbitmq.example.org/"
            )
        parts = urlsplit(settings.broker)
        user = parts.username or settings.accounts.get("RABBITMQ_USER")
        try:
            port = parts.port or _PORTS.get(parts.scheme)
        except ValueError:
            port = None
        if port is None or not parts.hostname or parts.query or parts.fragment:
            raise ConfigurationError(
                f"{settings.broker}: not the address of a RabbitMQ; it looks like "
                "amqp://host:5672/vhost, or amqps://host for TLS"
            )
        if not user:
            raise ConfigurationError("RABBITMQ_USER is not set")
        return cls(
            url=settings.broker,
            host=parts.hostname,
            port=port,
            virtual_host=unquote(parts.path[1:]) or "/",
            tls=parts.scheme == "amqps",
            user=user,
            password=settings.require_secret("RABBITMQ_PASSWORD"),
        )

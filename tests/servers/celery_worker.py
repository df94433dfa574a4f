"""Run celery's command line with a worker that looks for tasks ten times a second.

Galaxy's own Python runs this, with -P: beside this file stands a `galaxy.py` too. With PostgreSQL
as broker the worker polls, by default once a second, and Galaxy sends up to four tasks a job, one
after the other; kombu's SQL transport takes no option for it.
"""

from celery.__main__ import main  # type: ignore[import-not-found]
from kombu.transport.virtual import Transport  # type: ignore[import-not-found]

Transport.polling_interval = 0.1

if __name__ == "__main__":
    main()

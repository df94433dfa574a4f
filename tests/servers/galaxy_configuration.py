"""The configuration files of a Galaxy server: fast jobs, everything in one folder, no network."""

from __future__ import annotations

import json
import secrets
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

# Encoded ids stay the same over runs, so that a recorded test answer keeps its meaning.
_ID_SECRET = "biobank-test-servers"

# Below galaxy-app's galaxy/tools: Galaxy's own tools that are not among the collection operations.
_BUNDLED_TOOLS = ("bundled/data_source/upload.xml",)
# Below a folder of such a name stand tools that came from a Tool Shed as far as Galaxy can tell.
_SHED_PREFIX = "toolshed."
# data_fetch is loaded by Galaxy itself, hidden.
_NOT_IN_PANEL = ("data_fetch.xml",)


@dataclass(frozen=True, kw_only=True)
class GalaxyConfiguration:
    """What the files in `folder`/config are written from; `overrides` win over our keys."""

    folder: Path
    url: str
    admin_email: str
    database_url: str
    dependencies: Path
    job_workers: int
    tool_data_tables: Path | None
    overrides: Mapping[str, Any]

    def write(self) -> None:
        """Write all files but the tool list."""
        config = self.folder / "config"
        tool_data_tables = self.tool_data_tables
        if tool_data_tables is None:
            tool_data_tables = config / "tool_data_table_conf.xml"
            tool_data_tables.write_text("<tables/>\n")
        # JSON is YAML, and the standard library writes it.
        secrets_of_jobs = job_secrets(self.folder)
        if not secrets_of_jobs.exists():
            write_private(secrets_of_jobs, "")
        jobs = _job_configuration(self.job_workers, secrets_of_jobs)
        (config / "job_conf.yml").write_text(json.dumps(jobs))
        vault = {"type": "database", "encryption_keys": [server_secrets(self.folder)["vault_key"]]}
        write_private(config / "vault_conf.yml", json.dumps(vault))
        galaxy = self._keys() | {
            "tool_config_file": str(config / "tool_conf.xml"),
            "job_config_file": str(config / "job_conf.yml"),
            "vault_config_file": str(config / "vault_conf.yml"),
            "tool_data_table_config_path": str(tool_data_tables),
        }
        galaxy |= self.overrides
        write_private(config / "galaxy.yml", json.dumps({"galaxy": galaxy}, indent=1))

    def _keys(self) -> dict[str, Any]:
        """Return the keys of galaxy.yml that make jobs fast and keep everything in the folder."""
        return {
            "config_dir": str(self.folder / "config"),
            "data_dir": str(self.folder / "data"),
            "galaxy_infrastructure_url": self.url,
            "database_connection": self.database_url,
            "admin_users": self.admin_email,
            "bootstrap_admin_api_key": server_secrets(self.folder)["bootstrap_key"],
            "id_secret": _ID_SECRET,
            "allow_user_creation": True,
            "conda_auto_install": False,
            "conda_auto_init": False,
            "enable_mulled_containers": False,
            "tool_dependency_dir": str(self.dependencies),
            "dependency_resolvers": [
                {"type": "galaxy_packages"},
                {"type": "galaxy_packages", "versionless": True},
            ],
            "job_runner_monitor_sleep": 0.2,
            "job_handler_monitor_sleep": 0.2,
            "workflow_monitor_sleep": 0.2,
            "workflow_completion_monitor_sleep": 0.5,
            "enable_celery_tasks": True,
            "metadata_strategy": "directory_celery",
            "amqp_internal_connection": f"sqlalchemy+{self.database_url}",
            "celery_conf": {
                "result_backend": f"db+{self.database_url}",
                "task_routes": {
                    "galaxy.fetch_data": "galaxy.external",
                    "galaxy.set_job_metadata": "galaxy.external",
                },
            },
            "calculate_dataset_hash": "always",
            "hash_function": "sha256",
            "enable_sse_updates": True,
        }


def server_secrets(folder: Path) -> dict[str, str]:
    """Return what only the server in `folder` knows; kept in a file for its next start."""
    path = folder / "config" / "secrets.json"
    if not path.exists():
        made = {
            "bootstrap_key": secrets.token_hex(16),
            # The vault wants a Fernet key: 32 bytes as URL-safe base64 with its padding.
            "vault_key": secrets.token_urlsafe(32) + "=",
        }
        write_private(path, json.dumps(made))
    loaded: dict[str, str] = json.loads(path.read_text())
    return loaded


def write_tool_list(folder: Path, environment: Path, tools: Sequence[Path]) -> None:
    """List Galaxy's own collection operations, its upload tool and `tools` in tool_conf.xml."""
    model_tools = next(environment.glob("lib/python*/site-packages/galaxy/tools"))
    galaxys_own = [
        f"${{model_tools_path}}/{path.name}"
        for path in sorted(model_tools.glob("*.xml"))
        if path.name not in _NOT_IN_PANEL and is_tool(path)
    ]
    galaxys_own += [f"${{model_tools_path}}/{name}" for name in _BUNDLED_TOOLS]
    rows = [f"    <tool file={quoteattr(str(file))}/>" for file in galaxys_own]
    rows += [f"    {_tool_row(file)}" for file in tools]
    content = ["<toolbox>", '  <section id="biobank" name="Biobank">', *rows]
    content += ["  </section>", "</toolbox>", ""]
    target = _tool_list(folder)
    half_written = target.with_suffix(".tmp")
    half_written.write_text("\n".join(content))
    half_written.replace(target)  # Galaxy may read it at any moment


def _tool_row(file: Path) -> str:
    """Return a tool's line; below SHED/repos/OWNER/REPOSITORY/REVISION/ as Galaxy installs it.

    Such a test tool has a full Tool Shed id, though no Tool Shed was ever asked.
    """
    sheds = [number for number, part in enumerate(file.parts) if part.startswith(_SHED_PREFIX)]
    if not sheds or file.parts[sheds[-1] + 1] != "repos":
        return f"<tool file={quoteattr(str(file))}/>"
    shed, _, owner, repository, revision, *_ = file.parts[sheds[-1] :]
    root = ElementTree.parse(file).getroot()
    tool_id, version = root.attrib["id"], root.attrib["version"]
    guid = f"{shed}/repos/{owner}/{repository}/{tool_id}/{version}"
    inner = {
        "tool_shed": shed,
        "repository_name": repository,
        "repository_owner": owner,
        "installed_changeset_revision": revision,
        "id": guid,
        "version": version,
    }
    children = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in inner.items())
    return f"<tool file={quoteattr(str(file))} guid={quoteattr(guid)}>{children}</tool>"


def listed_tools(folder: Path) -> list[Path]:
    """Return the tools that `write_tool_list` was given."""
    files = [tool.attrib["file"] for tool in ElementTree.parse(_tool_list(folder)).iter("tool")]
    return [Path(file) for file in files if not file.startswith("$")]


def is_tool(path: Path) -> bool:
    """Tell a tool from the macro files that stand beside tools."""
    return ElementTree.parse(path).getroot().tag == "tool"


def write_private(path: Path, content: str) -> None:
    """Write a file that holds a secret; nobody else may read it, not even for a moment."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(content)


def _tool_list(folder: Path) -> Path:
    return folder / "config" / "tool_conf.xml"


def job_secrets(folder: Path) -> Path:
    """Return the BIOBANK_SECRETS_FILE of all jobs of the server in `folder`; empty at first."""
    return folder / "config" / "jobs.secrets"


def _job_configuration(workers: int, secrets_file: Path) -> dict[str, Any]:
    environment = {
        "runner": "local",
        # As docs/galaxy-administrator.md says.
        "env": [{"name": "BIOBANK_SECRETS_FILE", "value": str(secrets_file)}],
    }
    return {
        "runners": {
            "local": {"load": "galaxy.jobs.runners.local:LocalJobRunner", "workers": workers}
        },
        "execution": {"default": "local", "environments": {"local": environment}},
    }

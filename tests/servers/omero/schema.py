"""The stand-in's tables in PostgreSQL: one a hierarchy of classes, made from the model.

What drivers meet of OMERO's own schema has its names here too, because they stand in error texts:
the unique columns, and the trigger that enters new annotation namespaces.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.servers.omero.model import SQL_TYPES, Entity, Kind, entities

DETAILS_COLUMNS = ("owner_id", "group_id", "creation_id", "update_id")
EXTERNAL_INFO_COLUMN = "external_id"
_UNIQUE: dict[str, tuple[str, ...]] = {
    "experimenter": ("omename",),
    "experimentergroup": ("name",),
    "session": ("uuid",),
    "node": ("uuid",),
}
# Plain B-trees, as in OMERO: a text that a page can't hold three times over is refused.
_INDEXED: dict[str, tuple[str, ...]] = {
    "annotation": ("ns", "name"),
    "annotation_mapvalue": ("name", "value"),
    "eventlog": ("entityid",),
}
_NAMESPACE_TRIGGER = """
create function annotation_namespace() returns trigger language plpgsql as $$
begin
    if new.ns is not null and not exists (select 1 from namespace where name = new.ns) then
        insert into namespace (id, discriminator, name)
        values (nextval('seq_namespace'), 'Namespace', new.ns);
    end if;
    return new;
end $$;
create trigger annotation_namespace before insert or update of ns on annotation
    for each row execute function annotation_namespace();
"""
_OWN_TABLES = """
create table password (experimenter_id bigint primary key, hash text not null);
create table grouppermissions (group_id bigint primary key, perms text not null);
"""


def tables() -> dict[str, list[Entity]]:
    """Return each table's classes."""
    found: dict[str, list[Entity]] = {}
    for entity in entities().values():
        found.setdefault(entity.table, []).append(entity)
    return found


def statements() -> Iterator[str]:
    """Yield the statements that make an empty database."""
    yield _OWN_TABLES
    for table, classes in tables().items():
        yield f'create sequence "seq_{table}"'
        yield f'create table "{table}" ({", ".join(_columns(classes))})'
        for item in _maps(classes):
            yield (
                f'create table "{table}_{item}" ({table}_id bigint not null references "{table}"'
                " on delete cascade, index integer not null, name text, value text,"
                f" primary key ({table}_id, index))"
            )
    yield from _foreign_keys()
    for table, columns in _UNIQUE.items():
        for column in columns:
            yield f'alter table "{table}" add constraint {table}_{column}_key unique ("{column}")'
    yield "alter table namespace add constraint namespace_name unique (name)"
    for table, columns in _INDEXED.items():
        for column in columns:
            yield f'create index i_{table}_{column} on "{table}" ("{column}")'
    yield _NAMESPACE_TRIGGER


def _columns(classes: list[Entity]) -> list[str]:
    columns = {"id": "bigint primary key", "discriminator": "text"}
    for entity in classes:
        for item in entity.fields.values():
            if item.kind is Kind.VALUE:
                columns[item.column] = SQL_TYPES[item.type]
            elif item.kind is Kind.ONE:
                columns[item.column] = "bigint"
            elif item.kind is Kind.UNIT:
                columns[item.column] = "double precision"
                columns[f"{item.column}unit"] = "text"
    columns[EXTERNAL_INFO_COLUMN] = "bigint unique"
    if not classes[0].is_global:
        columns |= dict.fromkeys(DETAILS_COLUMNS, "bigint")
    return [f'"{name}" {of_type}' for name, of_type in columns.items()]


def _maps(classes: list[Entity]) -> list[str]:
    return sorted({item.column for entity in classes for item in entity.of_kind(Kind.MAP)})


def _foreign_keys() -> Iterator[str]:
    for table, classes in tables().items():
        seen = set()
        yield (
            f'alter table "{table}" add constraint fk{table}_external_id_externalinfo'
            " foreign key (external_id) references externalinfo"
        )
        for entity in classes:
            for item in entity.of_kind(Kind.ONE):
                if item.column in seen:
                    continue
                seen.add(item.column)
                target = entities()[item.type].table
                yield (
                    f'alter table "{table}" add constraint fk{table}_{item.column}_{target}'
                    f' foreign key ("{item.column}") references "{target}"'
                )
                yield f'create index i_{table}_{item.column} on "{table}" ("{item.column}")'

"""The statements that write. Values are parameters; labels come from kinds that were checked."""

from __future__ import annotations

from typing import Final

# MERGE ... ON MATCH SET takes the node's lock before its properties are read: of two writers of one
# object the second sees what the first wrote. Who is created here needs no second look.
MERGE_OBJECTS: Final = """
UNWIND $rows AS r
MERGE (o:Object {vid: r.vid})
ON CREATE SET o += r, o:$(r.kind)
ON MATCH SET o.lock = true
WITH o WHERE o.lock
REMOVE o.lock
RETURN properties(o)
"""
MERGE_RECORDS: Final = """
UNWIND $rows AS r
MERGE (o:Record {vid: r.vid})
ON CREATE SET o += r, o:$($label)
ON MATCH SET o.lock = true
WITH o WHERE o.lock
REMOVE o.lock
RETURN properties(o)
"""
# Devices are locked before all else, also those that actions only name: an action and its device
# that come at once from two writers must not miss each other.
LOCK_DEVICES: Final = """
UNWIND $vids AS vid
MERGE (o:Record {vid: vid})
ON CREATE SET o:Device
SET o.lock = true
REMOVE o.lock
RETURN properties(o)
"""
SET_OBJECTS: Final = """
UNWIND $rows AS r
MATCH (o:Object {vid: r.held.vid})
REMOVE o:$(r.was)
SET o = r.held, o:$(r.held.kind)
"""
SET_RECORDS: Final = """
UNWIND $rows AS r
MATCH (o:Record {vid: r.held.vid})
SET o = r.held, o:$($label)
"""
RENAME_DEVICES: Final = """
UNWIND $rows AS r
MATCH (a:Action {device: r.vid})
SET a.tool = r.label, a.release = r.release
WITH a, r
CALL (a, r) {
  MATCH ()-[e:PRODUCED {action: a.vid}]->() SET e.tool = r.label, e.release = r.release
}
CALL (a, r) {
  MATCH (a)-[e:MADE|USED]->() SET e.tool = r.label, e.release = r.release
}
"""
# Ends of edges that nobody has told of yet are placeholders. Made before the edges, in one go: each
# end is looked for once a batch with its lock, and the edges' own statements only read.
ENSURE_OBJECTS: Final = """
UNWIND $vids AS vid
MERGE (o:Object {vid: vid})
ON CREATE SET o:Placeholder
"""
PRODUCED: Final = """
UNWIND $links AS l
UNWIND l.sources AS a
MATCH (s:Object {vid: a[0]})
UNWIND l.targets AS b
MATCH (t:Object {vid: b[0]})
CREATE (s)-[:PRODUCED {
  key: a[2][b[2]], source_roles: a[1], target_roles: b[1], action: l.action, category: l.category,
  device: l.device, tool: l.tool, release: l.release, setup: l.setup, status: l.status, end: l.end
}]->(t)
"""
COLLECTED: Final = """
UNWIND $links AS l
MATCH (t:Object {vid: l.target})
UNWIND l.sources AS a
MATCH (s:Object {vid: a[0]})
CREATE (s)-[:COLLECTED_IN {key: a[2][0], source_roles: a[1]}]->(t)
"""
SUPERSEDES: Final = """
UNWIND $rows AS r
MATCH (s:Object {vid: r[0]})
MATCH (t:Object {vid: r[1]})
CREATE (s)-[:SUPERSEDES {supersession: r[2]}]->(t)
"""
MADE: Final = """
UNWIND $links AS l
MATCH (a:Record {vid: l.action})
UNWIND l.ends AS r
MATCH (o:Object {vid: r[0]})
CREATE (a)-[e:MADE]->(o)
SET e = l.maker
"""
USED: Final = """
UNWIND $links AS l
MATCH (a:Record {vid: l.action})
UNWIND l.ends AS r
MATCH (o:Object {vid: r[0]})
CREATE (a)-[e:USED]->(o)
SET e = l.maker, e.source_roles = r[1]
"""
UNMAKE: Final = (
    "UNWIND $vids AS vid MATCH ()-[e:PRODUCED {action: vid}]->() DELETE e",
    "UNWIND $vids AS vid MATCH (:Record {vid: vid})-[e:MADE|USED]->() DELETE e",
)
UNMAKE_SUPERSESSIONS: Final = (
    "UNWIND $vids AS vid MATCH ()-[e:SUPERSEDES {supersession: vid}]->() DELETE e"
)
UNMAKE_COLLECTIONS: Final = (
    "UNWIND $vids AS vid MATCH (:Object {vid: vid})<-[e:COLLECTED_IN]-() DELETE e"
)
# What nobody tells of any more stays as a placeholder while an edge needs it.
UNMAKE_OBJECTS: Final = """
UNWIND $rows AS r
MATCH (o:Object {vid: r.vid})
REMOVE o:$(r.was)
SET o = {vid: r.vid}, o:Placeholder
WITH o WHERE NOT (o)--()
DELETE o
"""
HELD_OBJECTS: Final = """
UNWIND $vids AS vid
MATCH (o:Object {vid: vid})
SET o.lock = true
REMOVE o.lock
RETURN o.vid, o.kind
"""
HELD_RECORDS: Final = """
UNWIND $vids AS vid
MATCH (o:Record {vid: vid})
SET o.lock = true
REMOVE o.lock
RETURN o.vid, labels(o)
"""
HELD: Final = """
UNWIND $vids AS vid
MATCH (o:Object|Record {vid: vid})
SET o.lock = true
REMOVE o.lock
RETURN properties(o), labels(o)
"""
LOWER: Final = """
UNWIND $rows AS r
MATCH (o:Object|Record {vid: r.vid})
SET o += r.held
"""
DELETE_RECORDS: Final = "UNWIND $vids AS vid MATCH (o:Record {vid: vid}) DETACH DELETE o"
SUPERSEDING: Final = """
UNWIND $vids AS vid
MATCH (:Object {vid: vid})-[e:SUPERSEDES]-()
RETURN DISTINCT e.supersession
"""
END_REFUSALS: Final = """
UNWIND $rows AS r
MATCH (f:Refusal {vid: r[0], log: r[1]}) WHERE f.version <= r[2]
DELETE f
"""
ANY_REFUSAL: Final = "MATCH (f:Refusal) RETURN count(f)"
MERGE_MIDDLES: Final = """
UNWIND $rows AS r
MERGE (o:Object {vid: r.vid})
REMOVE o:Placeholder
SET o = r, o:$(r.kind)
"""
